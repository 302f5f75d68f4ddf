"""Blocks of rows out of matrices, wherever and however they are stored."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .errors import ReadError
from .transpose import Entries, compressed_columns, tall_tiles, transposed, value_type

# A row of chunks taller than this would be decompressed again for each of many blocks of rows.
_TALL_CHUNK = 16_384
_SAMPLED_BLOCKS = 4


class RowMatrix(ABC):
    """A matrix that gives blocks of its rows.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    n_entries : int or None
        Entries that are stored, if that is known without reading them.
    samples_whole_rows : bool
        Whether the rows that `sample` gives are complete.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    n_entries: int | None = None
    samples_whole_rows = True

    @abstractmethod
    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows ``start:stop``, CSR, not necessarily canonical."""

    def sample(self, n_rows: int) -> sparse.csr_matrix:
        """Some `n_rows` rows from all over the matrix, in little time."""
        if n_rows >= self.shape[0]:
            return self.rows(0, self.shape[0])
        size = max(1, n_rows // _SAMPLED_BLOCKS)
        starts = np.linspace(0, self.shape[0] - size, _SAMPLED_BLOCKS).astype(int).tolist()
        return sparse.vstack([self.rows(start, start + size) for start in starts], format="csr")


class CompressedRows(RowMatrix):
    """Rows of a matrix kept as ``indptr``, ``indices`` and ``data``, in files or in memory.

    Parameters
    ----------
    indptr : integers [R+1]
        Read into memory; `indices` and `data` stay where they are.
    indices, data : array-like [nnz]
    n_columns : int
    what : str
        For messages.
    """

    def __init__(self, indptr: Any, indices: Any, data: Any, n_columns: int, what: str) -> None:
        self._indptr = checked_indptr(indptr, indices, data, what)
        self._indices, self._data, self._what = indices, data, what
        self.shape = (len(self._indptr) - 1, int(n_columns))
        self.n_entries = int(self._indptr[-1])
        self.dtype = value_type(data.dtype)

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        first, last = int(self._indptr[start]), int(self._indptr[stop])
        indices = np.require(self._indices[first:last], requirements="W")
        if len(indices) and (indices.min() < 0 or indices.max() >= self.shape[1]):
            wrong = int(indices.min()) if indices.min() < 0 else int(indices.max())
            raise ReadError(f"{self._what} has an entry in column {wrong} of {self.shape[1]}: the file is damaged")
        data = np.require(self._data[first:last], self.dtype, "W")
        indptr = self._indptr[start : stop + 1] - first
        return sparse.csr_matrix((data, indices, indptr), shape=(stop - start, self.shape[1]))


class SlicedRows(RowMatrix):
    """Rows of whatever ``[start:stop]`` works on: NumPy, CSR in memory, a dataset of a file, Dask."""

    def __init__(self, matrix: Any, what: str) -> None:
        if len(matrix.shape) != 2:
            raise ReadError(f"{what} has {len(matrix.shape)} dimensions, expected cells × genes")
        self._matrix = matrix
        self.shape = (int(matrix.shape[0]), int(matrix.shape[1]))
        self.dtype = value_type(matrix.dtype)

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        block = self._matrix[start:stop]
        block = block.compute() if hasattr(block, "compute") else block
        return sparse.csr_matrix(block.astype(self.dtype, copy=False))


class TransposedRows(RowMatrix):
    """Rows of a matrix stored by columns, written to a temporary file when the first of them is read.

    Parameters
    ----------
    entries : Entries
    shape : (int, int)
    what : str
        For messages.
    scratch, key, resources
        See `transposed`.
    """

    samples_whole_rows = False

    def __init__(
        self, entries: Entries, shape: tuple[int, int], what: str, scratch: Path | None, key: str, resources: ExitStack
    ) -> None:
        self._entries, self._what = entries, what
        self._scratch, self._key, self._resources = scratch, key, resources
        self._rows: CompressedRows | None = None
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = entries.dtype
        self.n_entries = entries.number

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        if self._rows is None:
            parts = transposed(self._entries, self._scratch, self._key, self._resources)
            self._rows = CompressedRows(*parts, self.shape[1], self._what)
        return self._rows.rows(start, stop)

    def sample(self, n_rows: int) -> sparse.csr_matrix:
        """Entries that come first in the file, of at most `n_rows` rows."""
        for rows, columns, values in self._entries.blocks():
            chosen = np.unique(rows)
            chosen = chosen[:: -(-len(chosen) // n_rows)]
            kept = np.isin(rows, chosen)
            entries = (values[kept].astype(self.dtype), (np.searchsorted(chosen, rows[kept]), columns[kept]))
            return sparse.csr_matrix(entries, shape=(len(chosen), self.shape[1]))
        return sparse.csr_matrix((0, self.shape[1]), dtype=self.dtype)


class SelectedColumns(RowMatrix):
    """The columns `keep` of another matrix."""

    def __init__(self, matrix: RowMatrix, keep: NDArray[np.int64]) -> None:
        self._matrix, self._keep = matrix, keep
        self.samples_whole_rows = matrix.samples_whole_rows
        self.shape = (matrix.shape[0], len(keep))
        self.dtype = matrix.dtype

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        return self._matrix.rows(start, stop)[:, self._keep]

    def sample(self, n_rows: int) -> sparse.csr_matrix:
        return self._matrix.sample(n_rows)[:, self._keep]


def checked_indptr(indptr: Any, indices: Any, data: Any, what: str) -> NDArray[np.int64]:
    """`indptr` in memory, if it fits `indices` and `data`."""
    bounds = np.asarray(indptr[:])
    if bounds.dtype.kind not in "iu" or bounds.ndim != 1 or not len(bounds) or indices.dtype.kind not in "iu":
        raise ReadError(f"{what} is no compressed matrix: indptr and indices are not lists of whole numbers")
    bounds = bounds.astype(np.int64)
    sizes = (int(bounds[-1]), *(int(np.prod(part.shape)) for part in (indices, data)))
    if bounds[0] != 0 or (np.diff(bounds) < 0).any() or len(set(sizes)) != 1:
        raise ReadError(
            f"{what} is damaged: indptr goes from {bounds[0]} to {sizes[0]}"
            f"{'' if (np.diff(bounds) >= 0).all() else ' and falls on the way'}, "
            f"indices and data have {sizes[1]} and {sizes[2]} entries"
        )
    return bounds


def as_rows(held: Any, what: str, scratch: Path | None, key: str, resources: ExitStack) -> RowMatrix:
    """Rows of `held`, by way of a temporary file where it is stored by columns.

    Parameters
    ----------
    held
        Matrix of an AnnData: NumPy, SciPy, Dask, backed sparse, dataset of HDF5 or Zarr.
    what
        For messages.
    scratch, key
        See `transposed`.
    resources
        Gets what has to be undone on closing.
    """
    if held.dtype.kind not in "biuf":
        raise ReadError(f"{what} holds {held.dtype}, no numbers; convert it with .astype('float32')")
    if sparse.issparse(held):
        return SlicedRows(held.tocsr(), what)
    if hasattr(held, "group"):  # anndata's CSRDataset and CSCDataset
        return _sparse_rows(held, what, scratch, key, resources)
    chunks = None if isinstance(held, np.ndarray) or hasattr(held, "compute") else held.chunks
    if chunks and len(chunks) == 2 and chunks[0] > _TALL_CHUNK and chunks[1] < held.shape[1]:
        return TransposedRows(tall_tiles(held), held.shape, what, scratch, key, resources)
    return SlicedRows(held, what)


def _sparse_rows(held: Any, what: str, scratch: Path | None, key: str, resources: ExitStack) -> RowMatrix:
    indptr, indices, data = (held.group[name] for name in ("indptr", "indices", "data"))
    n_rows, n_columns = held.shape
    bounds = checked_indptr(indptr, indices, data, what)
    if len(bounds) - 1 != (n_rows if held.format == "csr" else n_columns):
        raise ReadError(f"{what} is damaged: its shape is {held.shape}, but indptr has {len(bounds)} entries")
    if held.format == "csr":
        return CompressedRows(bounds, indices, data, n_columns, what)
    entries = compressed_columns(bounds, indices, data, n_rows, what)
    return TransposedRows(entries, held.shape, what, scratch, key, resources)
