"""Host arrays that every process holds whole: to the devices of all processes, and back to each of them."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from c2s_jax.parallel.rules import batch_sharding


def to_devices(tree: Any, mesh: Mesh) -> Any:
    """Arrays spread over the devices by rows, and scalars on all; each process hands over what its devices hold.

    Parameters
    ----------
    tree
        Of NumPy arrays [rows, ...], rows a multiple of the devices that share them, and scalars; the same on all.
    """
    rows, whole = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_process_local_data(rows if x.ndim else whole, x, x.shape)

    return jax.tree.map(put, tree)


def from_devices(tree: Any) -> Any:
    """Whole NumPy arrays on every process, whichever devices hold the rows. All processes have to call it."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def of_first_process(tree: Any) -> Any:
    """The arrays that process 0 has, of shapes and dtypes that are the same on all. All processes have to call it."""
    if jax.process_count() == 1:
        return tree
    found: Any = multihost_utils.broadcast_one_to_all(tree)
    return jax.tree.map(_as_given, found, tree)


def _as_given(found: Any, given: NDArray) -> NDArray:
    return np.asarray(found, dtype=given.dtype)
