"""Models from files, whatever wrote them."""

import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx

from c2s_jax.models.architectures import ModelConfig
from c2s_jax.models.decoder import Decoder
from c2s_jax.models.export import RUN_SETTINGS, is_export, load_export, read_export_config
from c2s_jax.models.hf import Progress, Shardings, from_hf, read_config

CHOICES = ("dtype", "param_dtype", *RUN_SETTINGS)


def load_model(
    source: str | Path,
    *,
    dtype: str | None = None,
    param_dtype: str | None = None,
    shardings: Shardings | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Decoder:
    """Read our own export, or a folder or hub repository of ``transformers``; see ``load_export``, ``from_hf``."""
    options = dict(dtype=dtype, param_dtype=param_dtype, shardings=shardings, **changes)
    return load_export(source, **options) if is_export(source) else from_hf(source, progress=progress, **options)


def load_config(source: str | Path, **changes: Any) -> ModelConfig:
    """The configuration that ``load_model`` would give, without the weights."""
    return read_export_config(source, **changes) if is_export(source) else read_config(source, **changes)


def load_weights(source: str | Path, config: ModelConfig, *, shardings: Shardings | None = None) -> nnx.State:
    """Parameters for a model of ``config`` from files.

    Raises
    ------
    ValueError
        When the files hold a model of another architecture; lists the fields that differ.
    """
    found = load_config(source)
    if type(found) is not type(config):
        raise ValueError(f"{source} holds a {type(found).__name__}; the configuration asks for {type(config).__name__}")
    choices: dict[str, Any] = {name: getattr(config, name) for name in CHOICES if hasattr(config, name)}
    found = dataclasses.replace(found, **choices)
    names = [field.name for field in dataclasses.fields(config)]
    differing = [n for n in names if getattr(found, n) != getattr(config, n)]
    if differing:
        lines = "".join(f"\n  {n}: {getattr(found, n)!r}, not {getattr(config, n)!r}" for n in differing)
        raise ValueError(f"{source} holds another model than the configuration's:{lines}")
    return nnx.state(load_model(source, shardings=shardings, **choices), nnx.Param)
