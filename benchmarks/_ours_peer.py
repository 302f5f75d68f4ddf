"""This project's side of ``cpu_vs_hf``: packed rows through the train step, prompts through the sampler."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from benchmarks import _workload as w
from benchmarks._peer import serve
from c2s_jax.config import base
from c2s_jax.generation import Sampler, Sampling
from c2s_jax.models import num_parameters
from c2s_jax.models.hf import from_hf
from c2s_jax.parallel import make_mesh
from c2s_jax.training import create_state, make_optimizer, make_train_step


class Ours:
    """The project's own parts, put together as ``c2s_jax.train`` does.

    Parameters
    ----------
    accumulate
        Micro-batches a step.
    settings
        Fields of the model's configuration that change no result: ``remat``, ``attention_chunk``.
    """

    def __init__(self, folder: Path, *, accumulate: int, **settings: Any):
        self.workload = w.Workload.load(folder)
        mesh = make_mesh({"fsdp": 1})
        model = from_hf(folder / "model", **settings)
        self.initial = nnx.state(model, nnx.Param)
        weights = jax.tree.map(lambda x: x.copy(), self.initial)  # the state takes them over
        optimizer = make_optimizer(optimizer_config())
        graphdef, self.state, shardings = create_state(model.config, optimizer, mesh, 0, weights=weights)
        self.step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=3, accumulate=accumulate)
        self.sampler = Sampler(graphdef, stop_ids=(), batch_size=len(self.workload.prompts), mesh=mesh)

    def about(self) -> dict[str, Any]:
        """Versions, size, and share of the rows that is not padding."""
        versions = {name: version(name) for name in ("c2s_jax", "jax", "jaxlib", "flax")}
        useful = float((self.workload.rows["segment_ids"] > 0).mean())
        return {"versions": versions, "parameters": num_parameters(self.initial), "useful": useful}

    def train(self, step: int) -> dict[str, Any]:
        """One optimizer step; the loss is that before it."""
        batch = {name: column[step] for name, column in self.workload.rows.items()}
        began = time.perf_counter()
        self.state, metrics = self.step(self.state, batch)
        jax.block_until_ready((self.state, metrics))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "positions": batch["tokens"].size, "loss": float(metrics["loss"])}

    def generate(self, new_tokens: int, temperature: float, prompts: int | None) -> dict[str, Any]:
        """Answers to the first prompts, from the initial weights; the batch always has as many rows as all prompts."""
        chosen, how = self.workload.prompts[:prompts], Sampling(temperature=temperature)
        began = time.perf_counter()
        samples = self.sampler(self.initial, chosen, max_new_tokens=new_tokens, sampling=how)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "positions": samples.tokens.size, "answers": samples.tokens.tolist()}


def optimizer_config() -> Any:
    """The optimizer that all sides use, as this project configures it."""
    config = base()
    config.steps = 1_000_000_000  # the cosine does not bend within the run
    config.optimizer.update(learning_rate=w.LEARNING_RATE, warmup_steps=0, weight_decay=w.WEIGHT_DECAY)
    config.optimizer.update(b1=w.B1, b2=w.B2, eps=w.EPS, clip_norm=w.CLIP_NORM)
    return config


if __name__ == "__main__":
    ours = Ours(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    serve(about=ours.about, train=ours.train, generate=ours.generate)
