"""Host arrays that every process holds whole: to the devices of all processes, and back to each of them."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
    return multihost_utils.process_allgather(tree, tiled=True)
