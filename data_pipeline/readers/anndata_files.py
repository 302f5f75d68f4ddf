"""``.h5ad`` files and ``.zarr`` folders."""

from pathlib import Path

from .errors import closing_on_error, reading
from .hdf5 import open_hdf5
from .stored import Stored
from .table import CellTable
from .transpose import file_key


def h5ad_table(path: Path, *, layer: str | None, use_raw: bool | None, scratch: Path | None) -> CellTable:
    """The table of an ``.h5ad`` file."""
    with closing_on_error() as resources, reading(str(path), ".h5ad"):
        store = resources.enter_context(open_hdf5(path, scratch))
        return Stored(store, str(path), "h5ad", file_key(path), scratch, resources).table(layer, use_raw)


def zarr_table(path: Path, *, layer: str | None, use_raw: bool | None, scratch: Path | None) -> CellTable:
    """The table of a ``.zarr`` folder."""
    import zarr

    with closing_on_error() as resources, reading(str(path), ".zarr"):
        store = zarr.open_group(path, mode="r")
        return Stored(store, str(path), "zarr", file_key(path), scratch, resources).table(layer, use_raw)
