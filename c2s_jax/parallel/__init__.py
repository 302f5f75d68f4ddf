"""Device mesh and the two tables that say how parameters and activations are laid out on it."""

from c2s_jax.parallel.describe import describe, describe_devices, describe_state
from c2s_jax.parallel.in_mesh import InMesh
from c2s_jax.parallel.mesh import batch_parts, cut_rows, make_mesh, micro_batches, round_up, tokens_at_once
from c2s_jax.parallel.processes import end_without_the_others, first_process_first, start_processes
from c2s_jax.parallel.rules import (
    ACTIVATION_RULES,
    PARAMETER_RULES,
    activation_rules,
    batch_sharding,
    parameter_shardings,
    share_of_rows,
)
from c2s_jax.parallel.shared import from_devices, to_devices

__all__ = [
    "ACTIVATION_RULES",
    "PARAMETER_RULES",
    "InMesh",
    "activation_rules",
    "batch_parts",
    "batch_sharding",
    "cut_rows",
    "describe",
    "describe_devices",
    "describe_state",
    "end_without_the_others",
    "first_process_first",
    "from_devices",
    "make_mesh",
    "micro_batches",
    "parameter_shardings",
    "round_up",
    "share_of_rows",
    "start_processes",
    "to_devices",
    "tokens_at_once",
]
