"""Logical axis -> mesh axis, for parameters and for activations."""

import math
from contextlib import AbstractContextManager
from typing import Any

from flax import nnx
from flax.core import spmd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c2s_jax.ops import WEIGHT

PARAMETER_RULES: dict[str, str | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "qkv": None,
    "ffw": "tensor",
    "norm": None,
    "lora_rank": None,
    "tile": None,
}

ACTIVATION_RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("replica", "fsdp"),
    "time": None,
    "embed": None,
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "ffw": "tensor",
    # Rows of a table are looked up where their dimensions are.
    "table_batch": "replica",
    "table_embed": "fsdp",
    # The loss spreads the vocabulary, not the rows, over the devices of a replica.
    "loss_batch": "replica",
    "loss_vocab": ("tensor", "fsdp"),  # as the parameter lies: then parts of it change places, and no more
}


def activation_rules() -> AbstractContextManager[None]:
    """Context in which ``ops.constrain`` and ``constrain_weight`` follow the tables; enter it with ``jax.set_mesh``."""
    weights = {WEIGHT + axis: rule for axis, rule in PARAMETER_RULES.items()}
    return spmd.logical_axis_rules(tuple((ACTIVATION_RULES | weights).items()))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: rows over replica and fsdp."""
    return NamedSharding(mesh, PartitionSpec(ACTIVATION_RULES["batch"]))


def parameter_shardings(params: nnx.State, mesh: Mesh) -> nnx.State:
    """NamedSharding of each parameter, from the logical ``axes`` it declares.

    A stacked parameter has one leading dimension more than axes; that dimension is not sharded.

    Raises
    ------
    ValueError
        Unknown logical axis, or a dimension that its mesh axis does not divide; names the parameter.
    """

    def one(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        name = ".".join(str(p) for p in path)
        axes = variable.get_metadata("axes")
        shape = variable.get_value().shape
        if unknown := [a for a in axes if a not in PARAMETER_RULES]:
            raise ValueError(f"parameter {name}: no rule for logical axes {unknown}; add them to PARAMETER_RULES")
        spec = (None,) * (len(shape) - len(axes)) + tuple(PARAMETER_RULES[a] for a in axes)
        for size, axis in zip(shape, spec):
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"parameter {name} {shape}: dimension {size} is not divisible by mesh axis "
                    f"{axis}={mesh.shape[axis]}; choose a {axis} size that divides it"
                )
        return variable.replace(NamedSharding(mesh, PartitionSpec(*spec)))

    return nnx.map_state(one, params)


def describe(params: nnx.State, shardings: nnx.State) -> str:
    """A line a parameter: name, shape, dtype, partition spec, bytes a device."""
    lines = []
    for (path, p), (_, s) in zip(nnx.to_flat_state(params), nnx.to_flat_state(shardings)):
        value, sharding = p.get_value(), s.get_value()
        shard = math.prod(sharding.shard_shape(value.shape)) * value.dtype.itemsize
        lines.append(f"{'.'.join(map(str, path))}  {value.shape} {value.dtype}  {sharding.spec}  {shard:,} B/device")
    return "\n".join(lines)
