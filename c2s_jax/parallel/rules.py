"""Logical axis -> mesh axis, for parameters and for activations."""

import math
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.core import spmd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c2s_jax.ops import WEIGHT

Rule = str | tuple[str, ...] | None

PARAMETER_RULES: dict[str, Rule] = {
    "vocab": "tensor",
    "embed": ("fsdp", "sequence"),
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "qkv": None,
    "ffw": "tensor",
    "norm": None,
    "lora_rank": None,
    "tile": None,
}

ACTIVATION_RULES: dict[str, Rule] = {
    "batch": ("replica", "fsdp"),
    "time": "sequence",  # keys and values are gathered within attention
    "embed": None,
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "ffw": "tensor",
    # Rows of a table are looked up where their dimensions are.
    "table_batch": "replica",
    "table_embed": ("fsdp", "sequence"),
    "table_embed_of_time": "fsdp",
    # The loss spreads the vocabulary, not the tokens, over the devices of a replica.
    "loss_batch": "replica",
    "loss_vocab": ("tensor", "fsdp", "sequence"),  # as the parameter lies: then parts of it change places, and no more
}


def activation_rules() -> AbstractContextManager[None]:
    """Context in which ``ops.constrain`` and ``constrain_weight`` follow the tables; enter it with ``jax.set_mesh``."""
    weights = {WEIGHT + axis: rule for axis, rule in PARAMETER_RULES.items()}
    return spmd.logical_axis_rules(tuple((ACTIVATION_RULES | weights).items()))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: rows over replica and fsdp; devices along sequence get the same rows, whole."""
    return NamedSharding(mesh, PartitionSpec(ACTIVATION_RULES["batch"]))


def share_of_rows(mesh: Mesh, process: int | None = None) -> dict[str, int]:
    """Which part of a batch's rows a process (by default this one) has to read, as arguments of ``data.batches``.

    Processes whose devices share rows, along sequence or tensor, read the same ones.

    Raises
    ------
    ValueError
        Processes that hold some rows in common, but not all.
    """
    held: dict[int, set[int]] = {}
    for place, device in np.ndenumerate(mesh.devices):
        at = dict(zip(mesh.axis_names, place))
        held.setdefault(device.process_index, set()).add(at["replica"] * mesh.shape["fsdp"] + at["fsdp"])
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    if sum(map(len, parts)) != mesh.shape["replica"] * mesh.shape["fsdp"]:
        raise ValueError(
            f"mesh {dict(mesh.shape)}: some of the {len(held)} processes hold a part of another's rows; choose "
            "sequence × tensor so that it divides a process's devices or is a multiple of them"
        )
    mine = held[jax.process_index() if process is None else process]
    return {"process_index": parts.index(tuple(sorted(mine))), "process_count": len(parts)}


def parameter_shardings(params: nnx.State, mesh: Mesh) -> nnx.State:
    """NamedSharding of each parameter, from the logical ``axes`` it declares.

    A stacked parameter has one leading dimension more than axes; that dimension is not sharded.

    Raises
    ------
    ValueError
        Unknown logical axis, two axes of one parameter on the same mesh axis, or a dimension that its mesh axes do not
        divide; names the parameter and what to change.
    """

    def one(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        name = ".".join(str(p) for p in path)
        axes, shape = variable.get_metadata("axes"), variable.get_value().shape
        if unknown := [a for a in axes if a not in PARAMETER_RULES]:
            raise ValueError(f"parameter {name}: no rule for logical axes {unknown}; add them to PARAMETER_RULES")
        _refuse_collisions(name, axes)
        whole = len(shape) - len(axes)
        for size, axis in zip(shape[whole:], axes):
            _refuse_remainder(f"parameter {name} {shape}", size, axis, mesh)
        spec = (None,) * whole + tuple(PARAMETER_RULES[a] for a in axes)
        return variable.replace(NamedSharding(mesh, PartitionSpec(*spec)))

    return nnx.map_state(one, params)


def mesh_axes(rule: Rule) -> tuple[str, ...]:
    """Mesh axes of a rule."""
    return (rule,) if isinstance(rule, str) else rule or ()


def _refuse_collisions(name: str, axes: tuple[str, ...]) -> None:
    taken: dict[str, str] = {}
    for axis in axes:
        for mesh_axis in mesh_axes(PARAMETER_RULES[axis]):
            if mesh_axis in taken:
                raise ValueError(
                    f"parameter {name}: its axes {taken[mesh_axis]!r} and {axis!r} both lie on mesh axis "
                    f"{mesh_axis!r}; give one of them another rule in PARAMETER_RULES"
                )
            taken[mesh_axis] = axis


def _refuse_remainder(name: str, size: int, axis: str, mesh: Mesh) -> None:
    over = mesh_axes(PARAMETER_RULES[axis])
    parts = math.prod(mesh.shape[a] for a in over)
    if size % parts:
        sizes = " × ".join(f"{a}={mesh.shape[a]}" for a in over)
        raise ValueError(
            f"{name}: dimension {size} ({axis!r}) is not divisible by mesh {sizes}; choose mesh.{over[0]} so that "
            f"the product is one of {', '.join(str(n) for n in range(1, min(size, mesh.size) + 1) if not size % n)}"
        )
