"""Device mesh and the two tables that say how parameters and activations are laid out on it."""

from c2s_jax.parallel.in_mesh import InMesh
from c2s_jax.parallel.mesh import make_mesh
from c2s_jax.parallel.rules import (
    ACTIVATION_RULES,
    PARAMETER_RULES,
    activation_rules,
    batch_sharding,
    describe,
    parameter_shardings,
)

__all__ = [
    "ACTIVATION_RULES",
    "PARAMETER_RULES",
    "InMesh",
    "activation_rules",
    "batch_sharding",
    "describe",
    "make_mesh",
    "parameter_shardings",
]
