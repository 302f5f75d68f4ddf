"""Notice of a step that compiles more than once."""

from typing import Any

import jax
from absl import logging

from c2s_jax.parallel import InMesh

Signature = dict[str, str]


class CountedStep:
    """A jitted step that runs under JAX's transfer guard, and warns when it is compiled again.

    Parameters
    ----------
    step
        The step.
    name
        For the warning.
    transfer_guard
        A level of ``jax.transfer_guard``: "disallow" raises where an array would be moved between host and device
        without being asked to, which makes a step wait.

    Attributes
    ----------
    compilations
        How often it was compiled.
    """

    def __init__(self, step: InMesh, name: str, *, transfer_guard: str = "disallow"):
        self._step, self._name, self._guard = step, name, transfer_guard
        self.compilations = 0
        self._known: Signature = {}

    def __call__(self, *arguments: Any) -> Any:
        with jax.transfer_guard(self._guard):
            result = self._step(*arguments)
        if self._step.compilations > self.compilations:
            self.compilations = self._step.compilations
            signature = _signature(arguments)
            if self._known:
                changed = [f"{k}: {self._known.get(k)} -> {v}" for k, v in signature.items() if self._known.get(k) != v]
                logging.warning(
                    "%s was compiled again (%d times now), as its arguments changed:\n  %s",
                    self._name,
                    self.compilations,
                    "\n  ".join(changed[:8] + ["..."] * (len(changed) > 8)) or "none in shape, dtype or sharding",
                )
            self._known = signature
        return result


def _signature(arguments: Any) -> Signature:
    """Shape, dtype and sharding of every array, by path; those of donated ones outlive their values."""
    leaves = jax.tree.leaves_with_path(arguments)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{x.dtype}{list(x.shape)} {x.sharding}"
        if isinstance(x, jax.Array)
        else f"{type(x).__name__} {x!r:.80}"
        for path, x in leaves
    }
