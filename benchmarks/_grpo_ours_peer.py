"""This project's side of ``grpo_speed``: the parts of ``c2s_jax.grpo``, put together as there."""

import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks import _grpo_work as w
from benchmarks._peer import serve
from c2s_jax.config import base
from c2s_jax.generation import Sampler, Sampling
from c2s_jax.models.hf import from_hf
from c2s_jax.parallel import make_mesh
from c2s_jax.rl import GRPOOptions, group_advantages, make_logprobs, make_update, rollout
from c2s_jax.rl.loss import token_weights
from c2s_jax.rl.packing import pack
from c2s_jax.training import create_state, make_optimizer


class Ours:
    """Steps of phases without files, texts and logs."""

    def __init__(self, folder: Path):
        given = w.settings(folder)
        self.length, beta = given["length"], given["beta"]
        self.options = o = GRPOOptions(
            prompts=w.PROMPTS, num_generations=w.GROUP, max_completion_length=w.NEW, beta=beta, loss_type="grpo"
        )
        mesh = make_mesh({"fsdp": 1})
        model = from_hf(folder / "model", attention_chunk=64, remat="dots")
        config = base()
        config.steps = 1_000_000
        config.optimizer.update(learning_rate=w.LEARNING_RATE, warmup_steps=0, weight_decay=0.0, clip_norm=w.CLIP_NORM)
        optimizer = make_optimizer(config)
        weights = nnx.state(model, nnx.Param)
        self.reference = jax.tree.map(lambda x: x.copy(), weights) if beta else None
        graphdef, self.state, shardings = create_state(model.config, optimizer, mesh, 0, weights=weights)
        self.sampler = Sampler(graphdef, stop_ids=(), batch_size=o.completions, mesh=mesh)
        vocabulary = w.MODEL["vocab_size"]
        self.update = make_update(graphdef, optimizer, mesh, shardings, o, vocab_size=vocabulary)
        self.logprobs = make_logprobs(graphdef, mesh, o, vocab_size=vocabulary, parts=1)
        self.number = 0

    def about(self) -> dict[str, Any]:
        """Versions."""
        return {"versions": {name: version(name) for name in ("c2s_jax", "jax", "flax")}}

    def step(self) -> dict[str, float]:
        """One phase of one update."""
        o, prompts = self.options, list(w.prompts(self.length, self.number))
        began = time.perf_counter()
        samples = self.sampler(
            self.state.eval_weights,
            prompts,
            max_new_tokens=w.NEW,
            sampling=Sampling(),
            seed=self.number,
            samples_per_prompt=o.num_generations,
        )
        sampled = time.perf_counter() - began
        arrays = rollout.arrays(prompts, samples.tokens, samples.lengths, samples.logprobs, o.num_generations, pad_id=0)
        packing = pack(arrays)
        batch = jax.device_put(packing.batches(arrays)[0])
        more = {} if self.reference is None else {"reference": self.logprobs(self.reference, batch)}
        advantages = group_advantages(np.array(w.reward(samples.tokens)), o.num_generations).values
        weights = token_weights(arrays["mask"], np.ones(o.completions, bool), o)
        laid = jax.device_put(packing.lay(weights=weights, advantages=advantages)[0])
        self.state, metrics = self.update(self.state, batch | more | laid)
        gap = float(metrics["logprob_gap"])
        jax.block_until_ready(self.state)
        assert gap < 1e-3, gap
        self.number += 1
        return {"seconds": time.perf_counter() - began, "rollout": sampled}


if __name__ == "__main__":
    ours = Ours(Path(sys.argv[1]))
    serve(about=ours.about, step=ours.step)
