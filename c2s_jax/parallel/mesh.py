"""The device mesh: replica (data centre network) × fsdp × sequence × tensor (fast interconnect)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils
from jax.sharding import Mesh
from numpy.typing import NDArray

CPU_TOKENS = 2048
CPU_TRAINED_TOKENS = 1024  # whose activations wait for the backward pass

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


def tokens_at_once(mesh: Mesh) -> int | None:
    """Tokens that a device reads in one pass at most; None where more cost nothing.

    Activations of more tokens than that leave a processor's caches, which makes each token a third dearer and more.
    """
    return CPU_TOKENS if mesh.devices.flat[0].platform == "cpu" else None


def micro_batches(mesh: Mesh, shape: tuple[int, ...], accumulate: int) -> int:
    """Parts in which a batch of rows [B, T] is trained on: ``accumulate``; on processors more, so that caches hold one.

    Parts have the same number of rows of every device.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return accumulate
    rows = shape[0] // round_up(1, mesh)
    parts = [n for n in range(accumulate, rows + 1, accumulate) if rows % n == 0]
    return next((n for n in parts if rows // n * shape[1] <= CPU_TRAINED_TOKENS), max(parts, default=accumulate))


def cut_rows(batch: dict[str, jax.Array], parts: int) -> dict[str, jax.Array]:
    """Columns [B, ...] -> [parts, B / parts, ...], strided so that each part has rows of every device."""
    return {name: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1) for name, x in batch.items()}


def make_mesh(shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Build the mesh of ``mesh_sizes``, which see for errors, by default from all devices.

    Axes follow the torus of a TPU slice where their sizes allow it, and are cut across it where not. Of several slices
    each holds whole replicas, so that only gradients cross the data centre's network.

    Raises
    ------
    ValueError
        Several TPU slices, and ``replica`` is no multiple of their number.
    """
    devices = list(devices or jax.devices())
    sizes = mesh_sizes(shape, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    if sizes["replica"] % slices:
        raise ValueError(
            f"mesh: replica={sizes['replica']} on {slices} slices, which only the data centre's network joins: set "
            f"mesh.replica={slices}, or a multiple of it"
        )
    return Mesh(_arranged(devices, tuple(sizes.values()), slices), AXES)


def _arranged(devices: Sequence[jax.Device], sizes: tuple[int, ...], slices: int) -> NDArray:
    within = (sizes[0] // slices, *sizes[1:])

    def lay(**options: Any) -> NDArray:
        if slices == 1:
            return mesh_utils.create_device_mesh(within, devices, **options)
        return mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1, 1), devices, **options)

    try:
        return lay()
    except NotImplementedError:  # no side of the torus, and no product of sides, is as long as an axis
        return lay(allow_split_physical_axes=True)
