"""Models from folders: converted or released checkpoints, and training runs as they are."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from c2s_jax.inference.card import read_card
from c2s_jax.inference.model import Model
from c2s_jax.inference.runs import is_workdir, read_run
from c2s_jax.models.export import is_export, read_description
from c2s_jax.models.hub import local_folder
from c2s_jax.models.weights import load_model
from c2s_jax.parallel import make_mesh, parameter_shardings
from c2s_jax.text import load_tokenizer

DEFAULT_CONTEXT = 2048


def load(
    source: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: str | None = None,
    tokenizer: str | Path | None = None,
    context: int | None = None,
    adapters: Mapping[str, str | Path] | None = None,
    **changes: Any,
) -> Model:
    """Load a model and its tokenizer.

    Parameters
    ----------
    source
        A folder written by ``c2s_jax.convert``, the workdir of a training run (its newest checkpoint is taken), a
        Hugging Face folder with safetensors files, or the name of a repository on its hub (owner/name).
    mesh
        Devices to spread the weights over (``parallel.make_mesh``); by default the first device.
    dtype
        Of weights and activations: float32 or bfloat16; by default as stored.
    tokenizer
        File or folder of the tokenizer, where it is not in ``source``.
    context
        Tokens to read at once at most; by default what the model was trained with.
    adapters
        Folders or hub repositories of ``peft`` adapters, by the names to give them; ``Model.use_adapter`` chooses one.
        The base is held once.
    changes
        Other fields of the model's configuration, e.g. ``attention``.

    Raises
    ------
    FileNotFoundError
        When a file is missing; says which.
    ValueError
        When the files are not those of a supported model.

    Examples
    --------
    >>> import c2s_jax
    >>> model = c2s_jax.load("runs/demo")  # doctest: +SKIP
    >>> model.annotate(adata)  # doctest: +SKIP
    """
    folder = local_folder(source)
    if is_workdir(folder):
        if dtype or tokenizer or changes or mesh is not None:
            raise ValueError(f"{folder} is a training run; convert it (c2s_jax.convert to-hf) to load it another way")
        run = read_run(folder)
        model = Model(
            run.module,
            load_tokenizer(run.tokenizer),
            run.mesh,
            card=run.card,
            source=str(source),
            context=context or run.context,
        )
        return _with(adapters, model)
    read = load_tokenizer(tokenizer or folder)
    mesh = mesh or make_mesh({"fsdp": 1}, jax.local_devices()[:1])
    module = load_model(folder, dtype=dtype, shardings=partial(parameter_shardings, mesh=mesh), **changes)
    card = read_card(folder)
    length = context or (card.context if card else _context(folder))
    return _with(adapters, Model(module, read, mesh, card=card, source=str(source), context=length))


def _with(adapters: Mapping[str, str | Path] | None, model: Model) -> Model:
    for name, adapter in (adapters or {}).items():
        model.add_adapter(name, adapter)
    return model


def _context(folder: Path) -> int:
    """Positions a checkpoint was made for."""
    if is_export(folder):
        settings = read_description(folder)["hugging_face"]
    else:
        settings = json.loads((folder / "config.json").read_text("utf-8"))
    return int(settings.get("max_position_embeddings") or DEFAULT_CONTEXT)
