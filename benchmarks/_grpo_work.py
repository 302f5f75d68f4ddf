"""What every side of ``grpo_speed`` does: GRPO steps with one tiny Gemma-2, random prompts and a cheap reward."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL: dict[str, Any] = dict(
    vocab_size=4096,
    embed_dim=128,
    ffw_dim=512,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    query_pre_attn_scalar=32.0,
    sliding_window=128,
)
PROMPTS, GROUP, NEW = 8, 8, 128
LEARNING_RATE, CLIP_NORM = 1e-5, 1.0
FIRST = 3  # token ids below it are special


def prompts(length: int, step: int) -> NDArray[np.int32]:
    """Of one step, [PROMPTS, length]."""
    return np.random.default_rng(step).integers(FIRST, MODEL["vocab_size"], (PROMPTS, length), np.int32)


def reward(completions: Sequence[Sequence[int]]) -> list[float]:
    """Share of even tokens of each completion."""
    return [float(np.mean(np.asarray(tokens) % 2 == 0)) for tokens in completions]


class Steps:
    """Steps of a loop that runs in a thread of its own and has to be let through one by one."""

    def __init__(self) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.rollout = 0.0

    def start(self, loop: Any) -> None:
        """Run the loop."""
        threading.Thread(target=loop, daemon=True).start()

    def wait(self) -> None:
        """In the loop, before a step: until it may begin."""
        self._go.acquire()

    def end(self) -> None:
        """In the loop, after a step."""
        self._done.release()

    def step(self) -> dict[str, float]:
        """Let one through; its seconds, and those of sampling."""
        began = time.perf_counter()
        self._go.release()
        self._done.acquire()
        return {"seconds": time.perf_counter() - began, "rollout": self.rollout}

    def timed(self, sample: Any) -> Any:
        """A function that samples, which notes how long it takes."""

        def run(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            found = sample(*arguments, **options)
            self.rollout = time.perf_counter() - began
            return found

        return run


def settings(folder: Path) -> dict[str, Any]:
    """Length of prompts and beta, as the parent wrote them."""
    return json.loads((folder / "settings.json").read_text())
