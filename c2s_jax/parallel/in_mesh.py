"""Calls with a mesh in force."""

from typing import Any

import jax
from jax.sharding import Mesh

from c2s_jax.parallel.rules import activation_rules


class InMesh:
    """A jitted function that is called, or lowered for compiling ahead of time, with a mesh and its rules in force."""

    def __init__(self, jitted: Any, mesh: Mesh):
        self._jitted, self._mesh = jitted, mesh

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with jax.set_mesh(self._mesh), activation_rules():
            return self._jitted(*arguments, **options)

    def lower(self, *arguments: Any, **options: Any) -> jax.stages.Lowered:
        """As ``jax.jit(...).lower``; arguments may be abstract."""
        with jax.set_mesh(self._mesh), activation_rules():
            return self._jitted.lower(*arguments, **options)

    @property
    def compilations(self) -> int:
        """How often it was compiled by being called."""
        return self._jitted._cache_size()
