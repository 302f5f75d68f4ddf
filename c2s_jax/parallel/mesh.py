"""The device mesh: replica (data centre network) × fsdp × tensor (fast interconnect)."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import Mesh

AXES = ("replica", "fsdp", "tensor")


def make_mesh(shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Build the mesh from axis sizes; one axis may be -1 and takes the remaining devices.

    Raises
    ------
    ValueError
        Unknown axis, or sizes that do not multiply to the number of devices.
    """
    if unknown := [axis for axis in shape if axis not in AXES]:
        raise ValueError(f"mesh: unknown axes {unknown}; the axes are {', '.join(AXES)}")
    devices = list(devices or jax.devices())
    sizes = [int(shape.get(axis, 1)) for axis in AXES]
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise ValueError(f"mesh: sizes must be positive, at most one of them -1; got {dict(shape)}")
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != len(devices):
        raise ValueError(f"mesh: {dict(zip(AXES, sizes))} needs {math.prod(sizes)} devices, {len(devices)} are here")
    return Mesh(mesh_utils.create_device_mesh(sizes, devices=devices), AXES)
