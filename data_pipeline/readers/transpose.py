"""From entries in any order to rows in a file, in bounded memory."""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import ReadError

# entries held in memory at a time; each takes some 40 bytes on the way
_BLOCK_ENTRIES = 4_000_000
_NAMES = ("indptr.npy", "indices.npy", "data.npy")

Block = tuple[NDArray, NDArray, NDArray]
"""Rows, columns and values of some entries."""


@dataclass(frozen=True)
class Entries:
    """The entries of a matrix in any order.

    Attributes
    ----------
    row_lengths : callable that gives int64 [R]
        Counts the entries of each row.
    blocks : callable that gives an iterator of `Block`
        All entries, some at a time.
    dtype : dtype
        Of the values.
    number : int, optional
        Of the entries, if that is known without reading them.
    """

    row_lengths: Callable[[], NDArray[np.int64]]
    blocks: Callable[[], Iterator[Block]]
    dtype: np.dtype
    number: int | None = None


def file_key(path: Path) -> str:
    """What tells the present content of a file from that of all others."""
    status = path.stat()
    return f"{path.absolute()}:{status.st_size}:{status.st_mtime_ns}"


def value_type(dtype: Any) -> np.dtype:
    """The type that values of a matrix are read as: SciPy has none of float16."""
    return np.dtype(np.float32 if dtype == np.float16 else dtype)


def compressed_columns(indptr: NDArray[np.int64], indices: Any, data: Any, n_rows: int, what: str) -> Entries:
    """Entries of a CSC matrix whose `indices` and `data` are arrays of a file."""
    bounds = range(0, int(indptr[-1]), _BLOCK_ENTRIES)

    def rows(start: int) -> NDArray:
        part = np.asarray(indices[start : start + _BLOCK_ENTRIES])
        if part.min() < 0 or part.max() >= n_rows:
            raise ReadError(f"{what} has an entry in row {int(part.max())} of {n_rows}: the file is damaged")
        return part

    def row_lengths() -> NDArray[np.int64]:
        lengths = np.zeros(n_rows, dtype=np.int64)
        for start in bounds:
            lengths += np.bincount(rows(start), minlength=n_rows)
        return lengths

    def blocks() -> Iterator[Block]:
        for start in bounds:
            part = rows(start)
            positions = np.arange(start, start + len(part))
            columns = np.searchsorted(indptr, positions, side="right") - 1
            yield part, columns, np.asarray(data[start : start + len(part)])

    return Entries(row_lengths, blocks, value_type(data.dtype), int(indptr[-1]))


def tall_tiles(matrix: Any) -> Entries:
    """Entries of a dense dataset that is stored in tall chunks, read chunk by chunk."""
    (n_rows, n_columns), (tall, wide) = matrix.shape, matrix.chunks

    def tiles() -> Iterator[tuple[int, int, NDArray]]:
        for left in range(0, n_columns, wide):
            for top in range(0, n_rows, tall):
                yield top, left, np.asarray(matrix[top : top + tall, left : left + wide])

    def row_lengths() -> NDArray[np.int64]:
        lengths = np.zeros(n_rows, dtype=np.int64)
        for top, _, tile in tiles():
            lengths[top : top + len(tile)] += np.count_nonzero(tile, axis=1)
        return lengths

    def blocks() -> Iterator[Block]:
        for top, left, tile in tiles():
            rows, columns = np.nonzero(tile)
            yield rows + top, columns + left, tile[rows, columns]

    return Entries(row_lengths, blocks, value_type(matrix.dtype))


def transposed(
    entries: Entries, scratch: Path | None, key: str, resources: ExitStack
) -> tuple[NDArray, NDArray, NDArray]:
    """Write the entries row by row to a temporary folder; return indptr, indices and data, mapped from there.

    Parameters
    ----------
    entries : Entries
    scratch : path, optional
        Folder in which the result is kept under a name made of `key`, for whoever opens the same matrix
        next; its owner removes it. None: a folder of its own, removed by `resources`.
    key : str
        What tells the matrix from all others: `file_key` and the name of the matrix.
    resources : ExitStack
    """
    if scratch is None:
        folder = Path(tempfile.mkdtemp(prefix="c2s-rows-"))
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
        write_rows(folder, entries, _BLOCK_ENTRIES)
        return _mapped(folder)
    final = scratch / f"rows-{sha256(key.encode()).hexdigest()[:24]}"
    with open(final.with_suffix(".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, by whatever end
        if not final.is_dir():
            unfinished = final.with_suffix(".incomplete")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            write_rows(unfinished, entries, _BLOCK_ENTRIES)
            unfinished.rename(final)
    return _mapped(final)


def write_rows(folder: Path, entries: Entries, band_entries: int) -> None:
    """Write ``indptr.npy``, ``indices.npy`` and ``data.npy`` of a CSR matrix.

    Rows are gathered in bands of about `band_entries` entries, which fit into memory: first every entry goes
    to its band's part of the files, then every band is sorted in place. So each file is written twice and
    never at random.
    """
    indptr = np.concatenate([[0], np.cumsum(entries.row_lengths())]).astype(np.int64)
    np.save(folder / _NAMES[0], indptr)
    bands = _bands(indptr, band_entries)
    dtypes = (np.dtype(np.int32), np.dtype(np.int32), entries.dtype)
    paths = (folder / "rows.npy", folder / _NAMES[1], folder / _NAMES[2])
    with ExitStack() as open_files:
        files = [_ArrayFile(open_files.enter_context(p.open("w+b")), d, indptr[-1]) for p, d in zip(paths, dtypes)]
        free = indptr[bands[:-1]].copy()
        for block in entries.blocks():
            _deal(files, block, bands, free)
        if not np.array_equal(free, indptr[bands[1:]]):
            raise ReadError("the matrix gave other entries when it was read again: has the file changed meanwhile?")
        for start, stop in zip(indptr[bands[:-1]].tolist(), indptr[bands[1:]].tolist()):
            order = _stable_order(files[0].read(start, stop))
            for file in files[1:]:
                file.write(start, file.read(start, stop)[order])
    paths[0].unlink()


def _bands(indptr: NDArray[np.int64], entries: int) -> NDArray[np.int64]:
    """First row of each band, and the number of rows."""
    n_rows = len(indptr) - 1
    marks = np.searchsorted(indptr, np.arange(0, indptr[-1], entries), side="right") - 1
    return np.unique(np.concatenate([[0], marks, [n_rows]]))


def _deal(files: Sequence["_ArrayFile"], block: Block, bands: NDArray[np.int64], free: NDArray[np.int64]) -> None:
    band = np.searchsorted(bands, block[0], side="right") - 1
    order = _stable_order(band)
    parts = [part[order] for part in block]
    sizes = np.bincount(band, minlength=len(free))
    ends = np.cumsum(sizes)
    for number in np.flatnonzero(sizes).tolist():
        piece = slice(ends[number] - sizes[number], ends[number])
        for file, part in zip(files, parts):
            file.write(free[number], part[piece])
        free[number] += piece.stop - piece.start


def _stable_order(keys: NDArray) -> NDArray[np.int64]:
    if len(keys) and keys.max() - keys.min() <= np.iinfo(np.uint16).max:
        keys = (keys - keys.min()).astype(np.uint16)  # which NumPy sorts by radix, several times faster
    return np.argsort(keys, kind="stable")


class _ArrayFile:
    """An ``.npy`` file written in pieces. Plain writes, because a full disk under a memory map kills the process."""

    def __init__(self, file: IO[bytes], dtype: np.dtype, size: int) -> None:
        self._file, self._dtype = file, dtype
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (int(size),)}
        np.lib.format.write_array_header_1_0(file, header)
        self._offset = file.tell()

    def write(self, start: int, values: NDArray) -> None:
        self._file.seek(self._offset + int(start) * self._dtype.itemsize)
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)

    def read(self, start: int, stop: int) -> NDArray:
        self._file.seek(self._offset + start * self._dtype.itemsize)
        return np.frombuffer(self._file.read((stop - start) * self._dtype.itemsize), dtype=self._dtype)


def _mapped(folder: Path) -> tuple[NDArray, NDArray, NDArray]:
    indptr = np.load(folder / _NAMES[0])
    # nothing cannot be mapped
    indices, data = (np.load(folder / name, mmap_mode="r" if indptr[-1] else None) for name in _NAMES[1:])
    return indptr, indices, data
