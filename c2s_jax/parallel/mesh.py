"""The device mesh: replica (data centre network) × fsdp × sequence × tensor (fast interconnect)."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import Mesh

AXES = ("replica", "fsdp", "sequence", "tensor")


def mesh_sizes(shape: Mapping[str, int], devices: int) -> dict[str, int]:
    """Size of every axis on so many devices; one size in ``shape`` may be -1 and takes what the others leave.

    Raises
    ------
    ValueError
        Unknown axis, or sizes that do not multiply to the number of devices.
    """
    if unknown := [axis for axis in shape if axis not in AXES]:
        raise ValueError(f"mesh: unknown axes {unknown}; the axes are {', '.join(AXES)}")
    sizes = [int(shape.get(axis, 1)) for axis in AXES]
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise ValueError(f"mesh: sizes must be positive, at most one of them -1; got {dict(shape)}")
    sizes = [devices // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != devices:
        raise ValueError(f"mesh: {dict(zip(AXES, sizes))} needs {math.prod(sizes)} devices, {devices} are here")
    return dict(zip(AXES, sizes))


def batch_parts(shape: Mapping[str, int], devices: int) -> int:
    """Parts into which so many devices split the rows of a batch; errors as of ``mesh_sizes``."""
    sizes = mesh_sizes(shape, devices)
    return sizes["replica"] * sizes["fsdp"]


def round_up(rows: int, mesh: Mesh) -> int:
    """The next multiple of the devices that split the rows of a batch."""
    parts = mesh.shape["replica"] * mesh.shape["fsdp"]
    return -(-rows // parts) * parts


def make_mesh(shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Build the mesh of ``mesh_sizes``, which see for errors, by default from all devices."""
    devices = list(devices or jax.devices())
    sizes = tuple(mesh_sizes(shape, len(devices)).values())
    return Mesh(mesh_utils.create_device_mesh(sizes, devices=devices), AXES)
