"""Our own model folders: parameters as an Orbax checkpoint in ``params``, ``model.json``, and the tokenizer's files."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx

from c2s_jax.models.architectures import (
    ARCHITECTURES,
    ModelConfig,
    architecture_name,
    make_model,
    named_parameters,
)
from c2s_jax.models.decoder import Decoder
from c2s_jax.models.folders import new_folder
from c2s_jax.models.hf import Shardings, first_device
from c2s_jax.text import copy_tokenizer

DESCRIPTION, PARAMS = "model.json", "params"
# A run's choice, not the model's; not kept.
RUN_SETTINGS = ("dropout", "remat", "remat_scope", "mlp_chunks", "attention", "attention_chunk")


def save_export(
    module: Decoder,
    folder: str | Path,
    *,
    tokenizer: str | Path | None = None,
    hugging_face: Mapping[str, Any] | None = None,
) -> None:
    """Write a model; whole or not at all.

    Parameters
    ----------
    module
        On the devices of this process.
    folder
        Does not exist yet, or is empty.
    tokenizer
        File or folder of the tokenizer to put beside the weights.
    hugging_face
        Keys of ``config.json`` that our configuration does not have (e.g. ``max_position_embeddings``), kept for
        ``to_hf``.

    Raises
    ------
    FileExistsError
        When ``folder`` holds something.
    ValueError
        When the model carries an adapter.
    """
    params = {".".join(path): value for path, value in named_parameters(module).items()}
    description = {
        "architecture": architecture_name(module.config),
        "config": {k: v for k, v in dataclasses.asdict(module.config).items() if k not in RUN_SETTINGS},
        "hugging_face": dict(hugging_face or {}),
    }
    with new_folder(folder) as partial_folder:
        if tokenizer is not None:
            copy_tokenizer(tokenizer, partial_folder)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(partial_folder.absolute() / PARAMS, params)
        (partial_folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_export(
    folder: str | Path,
    *,
    dtype: str | None = None,
    param_dtype: str | None = None,
    shardings: Shardings | None = None,
    **changes: Any,
) -> Decoder:
    """Read a model that ``save_export`` wrote.

    Parameters
    ----------
    dtype
        Of activations, and of parameters unless ``param_dtype`` is given; by default as saved.
    param_dtype
        Of parameters.
    shardings
        Where parameters go; by default to the first device.
    changes
        Other fields of the configuration, e.g. ``remat``, ``attention``.

    Raises
    ------
    FileNotFoundError
        When ``folder`` is no such folder.
    ValueError
        When its files do not fit together.
    """
    config = read_export_config(folder, dtype=dtype, param_dtype=param_dtype, **changes)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0))))
    places = (shardings or first_device)(params)
    abstract = {
        ".".join(map(str, path)): jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=place.get_value())
        for (path, v), (_, place) in zip(nnx.to_flat_state(params), nnx.to_flat_state(places))
    }
    path = Path(folder).absolute() / PARAMS
    with ocp.StandardCheckpointer() as checkpointer:
        _check(path, abstract, checkpointer)
        arrays = checkpointer.restore(path, abstract)
    filled = nnx.map_state(lambda path, v: v.replace(arrays[".".join(map(str, path))]), params)
    return nnx.merge(graphdef, filled)


def _check(path: Path, wanted: Mapping[str, Any], checkpointer: ocp.StandardCheckpointer) -> None:
    """Refuse parameters that are not those of the description."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path.parent} holds {DESCRIPTION}, but no {PARAMS}")
    stored = checkpointer.metadata(path).item_metadata.tree
    shapes = {name: tuple(array.shape) for name, array in stored.items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        a, b = shapes.get(name), wanted[name].shape if name in wanted else None
        if a != b:
            raise ValueError(f"{path} has {name} {a or 'not'}; by {DESCRIPTION} beside it, it would be {b or 'absent'}")


def read_export_config(
    folder: str | Path, *, dtype: str | None = None, param_dtype: str | None = None, **changes: Any
) -> ModelConfig:
    """The configuration of an exported model; arguments as for ``load_export``."""
    description = read_description(folder)
    changes |= {"dtype": dtype} if dtype else {}
    changes |= {"param_dtype": param_dtype or dtype} if param_dtype or dtype else {}
    try:
        config_class = ARCHITECTURES[description["architecture"]][1]
        return config_class(**{**description["config"], **changes})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{Path(folder) / DESCRIPTION} describes no model of this version: {error}") from error


def read_description(folder: str | Path) -> dict[str, Any]:
    """Content of ``model.json``."""
    path = Path(folder) / DESCRIPTION
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None


def is_export(folder: str | Path) -> bool:
    """Whether ``save_export`` wrote this folder."""
    return (Path(folder) / DESCRIPTION).is_file()
