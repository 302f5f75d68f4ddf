"""The newest checkpoint of a training run, with what its corpus tells."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from c2s_jax import workdirs
from c2s_jax.config import all_tasks, base, mixture, plain
from c2s_jax.data import Corpus, MixtureTask
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.task_stream import MissingData, TaskStream
from c2s_jax.inference.card import ModelCard
from c2s_jax.initialize import plan_state, state_to_restore
from c2s_jax.models import Decoder, lora
from c2s_jax.models.linear import set_products
from c2s_jax.parallel import make_mesh
from c2s_jax.text import load_tokenizer
from c2s_jax.training import Checkpoints


class Run(NamedTuple):
    """A run's model: the running mean of its weights if one is kept, an adapter merged into its base.

    Attributes
    ----------
    module, mesh
        The model and the device that holds it.
    tokenizer
        Path.
    card
        What its corpus tells; None where that is gone.
    context
        Tokens of a row in training.
    init_from
        Weights it started from; "" for none.
    step
        Of the checkpoint.
    """

    module: Decoder
    mesh: Mesh
    tokenizer: Path
    card: ModelCard | None
    context: int
    init_from: str
    step: int


def is_workdir(folder: Path) -> bool:
    """Whether a training run wrote this folder."""
    return (folder / "config.json").is_file() and (folder / "checkpoints").is_dir()


def read_run(workdir: Path, *, merge: bool = True) -> Run:
    """The newest checkpoint of a run; with ``merge=False`` its adapter stays beside the weights.

    Raises
    ------
    ValueError
        When there is no whole checkpoint, or the tokenizer is not the one it was trained with.
    """
    config = _config(workdir / "config.json")
    checkpoints = Checkpoints(str(workdir), every=1)
    if checkpoints.latest is None:
        raise ValueError(f"{workdir} holds no whole checkpoint yet; go on training first")
    corpus, path = workdirs.data_paths(config, str(workdir))
    tokenizer, mesh = load_tokenizer(path), make_mesh({"fsdp": 1}, jax.local_devices()[:1])
    with contextlib.redirect_stdout(sys.stderr):  # it tells what is trained; here, standard output is for results
        plan = plan_state(config, tokenizer, mesh)
    weights, meta = checkpoints.restore_weights(state_to_restore(config, plan, mesh))
    step = checkpoints.latest
    checkpoints.close()
    workdirs.check_tokenizer(meta, tokenizer)
    module = nnx.merge(plan.graphdef, weights)
    if plan.quantized:
        from c2s_jax.models.quantize import dequantize  # its package is an extra

        dequantize(module, plan.config.param_dtype)
    set_products(module, "float")
    if merge:
        lora.merge(module)
    card = _card(config, corpus) if Path(corpus).is_dir() else None
    return Run(module, mesh, Path(path), card, config.data.seq_len, config.init_from, step)


def _config(path: Path) -> ConfigDict:
    """A run's configuration; keys that came with later versions have their defaults."""
    saved = json.loads(path.read_text())
    return ConfigDict(_filled(plain(base(saved["model"]["architecture"])), saved))


def _filled(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    out = {**defaults, **given}
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict):
            out[name] = _filled(defaults[name], value)
    return out


def _card(config: Any, folder: str) -> ModelCard:
    corpus = Corpus(folder)
    tasks = _possible(config, corpus)
    longest = int(corpus.cells("train").n_genes.max())
    most = max(task.max_genes or config.evaluation.max_genes for task in tasks)
    prompts = {task.prompts for task in tasks}
    return ModelCard.of_corpus(
        corpus,
        tasks=tuple(task.task for task in tasks),
        n_genes=min(most, longest),
        context=config.data.seq_len,
        prompts=prompts.pop() if len(prompts) == 1 else "c2s_jax",
    )


def _possible(config: Any, corpus: Corpus) -> list[MixtureTask]:
    """The tasks a run was trained on: where it took "all", those the corpus has data for."""
    tasks = mixture(config)
    if not all_tasks(config):
        return tasks
    known, out = Known(corpus, "train"), []
    for task in tasks:
        with contextlib.suppress(MissingData):
            TaskStream(task, known, number=0, seed=0)
            out.append(task)
    return out
