"""Where a state's arrays lie and what they take on one device, as a table."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

GIB = 1 << 30


def describe(params: nnx.State, shardings: nnx.State) -> str:
    """A line a parameter: name, shape, dtype, partition, its part on one device and that part's bytes."""
    abstract = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), params, shardings
    )
    return _aligned(list(_rows(abstract)))


def describe_devices(mesh: Mesh) -> str:
    """A line on the devices of a run."""
    kind = mesh.devices.flat[0].device_kind
    return f"Devices: {mesh.size} × {kind} of {jax.process_count()} processes, mesh {dict(mesh.shape)}"


def describe_state(state: Any, mesh: Mesh) -> str:
    """Table of a training state (``training.TrainState``), abstract or real: its parameters, then the sum of each part.

    Nothing needs to be compiled or to exist on devices for it.
    """
    parts = {name: getattr(state, name) for name in state._fields}
    trees = [parts["params"], parts["frozen"]]
    rows = [row for tree in trees if tree is not None for row in _rows(tree)]
    sums = {name: sum(map(_part_bytes, jax.tree.leaves(tree))) for name, tree in parts.items() if name != "step"}
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    totals = ", ".join(f"{name} {size / GIB:.3f}" for name, size in sums.items() if size)
    return (
        f"Sharding of parameters over {mesh.size} devices ({shape}):\n{_aligned(rows)}\n"
        f"GiB a device before any step: {totals}, together {sum(sums.values()) / GIB:.3f}"
    )


def _rows(tree: nnx.State) -> Iterator[tuple[str, ...]]:
    for path, variable in nnx.to_flat_state(tree):
        value = variable.get_value()
        for x in jax.tree.leaves(value):  # a quantised kernel has several
            yield (
                ".".join(map(str, path)),
                f"{x.shape} {x.dtype}",
                _spec(x.sharding.spec),
                f"{x.sharding.shard_shape(x.shape)}",
                f"{_part_bytes(x):,} B/device",
            )


def _spec(spec: PartitionSpec) -> str:
    """As ``(-, fsdp·sequence, tensor)``; a dash is a dimension that is whole on each device."""
    return f"({', '.join('·'.join((p,) if isinstance(p, str) else p) if p else '-' for p in spec)})"


def _part_bytes(x: Any) -> int:
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
