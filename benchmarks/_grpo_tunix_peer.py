"""Tunix's side of ``grpo_speed``: its GRPO learner with the sampler of its own. Runs with an interpreter of its own."""

import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

from benchmarks import _grpo_work as w
from benchmarks import _workload
from benchmarks._peer import serve
from benchmarks._tunix_peer import NEVER, Ids, Tunix


class Gemma(Tunix):
    """Models of the workload's shape and weights, without ``cpu_vs_hf``'s trainer."""

    def __init__(self, folder: Path):
        self.workload: Any = SimpleNamespace(model=w.MODEL)
        self._arrays = _workload.read(folder / "weights.npz")

    def make(self) -> Any:
        """A model."""
        return self._model(self._arrays)


class Learner:
    """A GRPO learner. It reads ahead, so it makes all its steps at once; a step lasts from sampling to sampling."""

    def __init__(self, folder: Path):
        given = w.settings(folder)
        self.length, self.number, self.done = given["length"], given["steps"], list[dict[str, float]]()
        gemma, mesh = Gemma(folder), Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
        optimizer = optax.chain(optax.clip_by_global_norm(w.CLIP_NORM), optax.adamw(w.LEARNING_RATE, weight_decay=0.0))
        bucket = 1 << (self.length - 1).bit_length()
        self.actor = gemma.make()
        self.cluster = RLCluster(
            actor=self.actor,
            reference=gemma.make() if given["beta"] else None,
            tokenizer=Ids(),
            cluster_config=ClusterConfig(
                role_to_mesh=dict.fromkeys((Role.ACTOR, Role.REFERENCE, Role.ROLLOUT), mesh),
                training_config=RLTrainingConfig(
                    actor_optimizer=optimizer, eval_every_n_steps=NEVER, max_steps=self.number
                ),
                rollout_config=RolloutConfig(
                    max_tokens_to_generate=w.NEW,
                    max_prompt_length=bucket,
                    kv_cache_size=bucket + w.NEW,
                    temperature=1.0,
                    eos_tokens=[NEVER],
                ),
            ),
        )
        self._generate, self.cluster.generate = self.cluster.generate, self._timed
        self.starts, self.rollouts = list[float](), list[float]()
        config = GRPOConfig(num_generations=w.GROUP, num_iterations=1, beta=given["beta"], epsilon=0.2)
        self.learner = GRPOLearner(self.cluster, config, reward)

    def step(self) -> dict[str, float]:
        """The next of the steps, all of which are made when the first is asked for."""
        if not self.done:
            self.learner.train(self._prompts())
            jax.block_until_ready(nnx.state(self.actor))
            ends = [*self.starts[1:], time.perf_counter()]
            times = zip(self.starts, ends, self.rollouts, strict=True)
            self.done = [{"seconds": end - start, "rollout": rollout} for start, end, rollout in times]
        return self.done.pop(0)

    def _prompts(self) -> Iterator[dict[str, Any]]:
        for number in range(self.number):
            # An array: in a list, the learner repeats the parts of each text instead of the texts.
            yield {"prompts": np.array([" ".join(map(str, row)) for row in w.prompts(self.length, number)])}

    def _timed(self, *arguments: Any, **options: Any) -> Any:
        self.starts.append(time.perf_counter())
        found = self._generate(*arguments, **options)
        self.rollouts.append(time.perf_counter() - self.starts[-1])
        return found


def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """Share of even tokens."""
    return w.reward([[int(word) for word in text.split()] for text in completions])


if __name__ == "__main__":
    learner = Learner(Path(sys.argv[1]))
    names = ("google-tunix", "jax", "flax")
    serve(about=lambda: {"versions": {name: version(name) for name in names}}, step=learner.step)
