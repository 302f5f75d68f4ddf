"""A trace of some steps, for xprof, TensorBoard's profile plugin or Perfetto."""

import os
from collections.abc import Sequence
from typing import Any

import jax


class Profile:
    """Traces steps ``first`` to ``last`` (both included) into ``workdir/profile``.

    Parameters
    ----------
    steps
        ``(first, last)``; empty: none.
    """

    def __init__(self, workdir: str, steps: Sequence[int]):
        self._directory = os.path.join(workdir, "profile")
        self._first, self._last = steps or (-1, -1)
        self._running = False

    def before(self, step: int) -> None:
        """Call before ``step`` is started."""
        if step == self._first:
            jax.profiler.start_trace(self._directory)
            self._running = True

    def after(self, step: int, metrics: Any) -> None:
        """Call after ``step`` was started; the last one traced is waited for."""
        if step >= self._last and self._running:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """End a trace under way, e.g. when the run ends before it."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


def check_profile(steps: Sequence[int]) -> None:
    """Refuse what is not ``(first, last)``."""
    if steps and (len(steps) != 2 or not 1 <= steps[0] <= steps[1]):
        raise ValueError(f"profile.steps={tuple(steps)} must be (first, last), steps from 1 on, or () for no trace")
