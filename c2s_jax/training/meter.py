"""How fast a run is: time a step, tokens, FLOPs, memory, and the share of its life that it spent in steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np


class Meter:
    """Counts steps and tokens, and tells rates over the time since it was last read.

    Parameters
    ----------
    tokens_per_step
        Places of a batch, padding included, on all devices together.
    flops_per_token
        That training needs (``aot.flops``).
    devices
        How many share the work.
    peak_flops
        FLOP/s of one; None where it is not known.
    began
        Unix time of the run's first start.
    in_steps
        Seconds in steps until the checkpoint that the run goes on from. What was done after it and lost is not in it.
    """

    def __init__(
        self,
        *,
        tokens_per_step: int,
        flops_per_token: float,
        devices: int,
        peak_flops: float | None,
        began: float,
        in_steps: float = 0.0,
    ):
        self._tokens_per_step, self._flops_per_token = tokens_per_step, flops_per_token
        self._devices, self._peak, self._began = devices, peak_flops, began
        self._in_steps = in_steps
        self.restart()

    def restart(self, in_steps: float | None = None) -> None:
        """Count from now on, e.g. after the first step, which compiles; ``in_steps`` as a checkpoint has it."""
        self._in_steps = self._in_steps if in_steps is None else in_steps
        self._useful: list[jax.Array] = []
        self._since, self._outside = time.monotonic(), 0.0

    def step(self, useful: jax.Array) -> None:
        """Count a step with so many tokens of examples (int32 [], may still be on its way)."""
        self._useful.append(useful)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Time that is no step's: validation, checkpoints."""
        began = time.monotonic()
        yield
        self._outside += time.monotonic() - began

    @property
    def in_steps(self) -> float:
        """Seconds in steps, over all starts of the run."""
        return self._in_steps + self._seconds()

    def _seconds(self) -> float:
        return time.monotonic() - self._since - self._outside if self._useful else 0.0

    def read(self) -> dict[str, float]:
        """Figures since the last reading; call when the device is done with the steps counted."""
        steps, seconds = len(self._useful), self._seconds()
        wall = max(time.time() - self._began, 1e-9)
        figures = {"train/goodput": min(1.0, self.in_steps / wall), **memory()}
        if steps:
            useful = int(np.sum(jax.device_get(self._useful)))
            places = steps * self._tokens_per_step
            figures |= {
                "train/step_seconds": seconds / steps,
                "train/tokens_per_second": useful / seconds,
                "train/tokens_per_second_per_chip": useful / seconds / self._devices,
                "train/useful_token_share": useful / places,
                "train/tflops_per_chip": places * self._flops_per_token / seconds / self._devices / 1e12,
            }
            if self._peak:
                figures["train/mfu"] = figures["train/tflops_per_chip"] * 1e12 / self._peak
        self.restart(self.in_steps)
        return figures


def memory() -> dict[str, float]:
    """Memory of the fullest of this process's devices, in GiB; nothing where the device does not tell."""
    stats = [s for s in (device.memory_stats() for device in jax.local_devices()) if s]
    names = {"in_use": "bytes_in_use", "peak": "peak_bytes_in_use", "limit": "bytes_limit"}
    return {
        f"memory/{name}_gib": max(s[key] for s in stats) / 2**30
        for name, key in names.items()
        if stats and all(key in s for s in stats)
    }
