"""Ragged arrays: rows one after the other in ``values``, row i at ``indptr[i]:indptr[i + 1]``."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def offsets(lengths: NDArray) -> NDArray[np.int64]:
    """``indptr`` of rows with these lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """Numbers of at most ``most`` of ``n`` rows, rising, spread over all of them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def positions(starts: NDArray, lengths: NDArray) -> NDArray[np.int64]:
    """Concatenation of ``arange(start, start + length)`` over all rows."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if ends.size else 0
    return np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths) + np.arange(total)


def row_numbers(lengths: NDArray) -> NDArray[np.int64]:
    """The number of its row for each value of rows with these lengths."""
    return np.repeat(np.arange(len(lengths)), lengths)


def places(lengths: NDArray) -> NDArray[np.int64]:
    """The place in its row, from 0, for each value of rows with these lengths."""
    return positions(np.zeros(len(lengths), np.int64), lengths)


def take_rows(values: NDArray[T], indptr: NDArray, rows: NDArray) -> tuple[NDArray[T], NDArray[np.int64]]:
    """Some rows, in the order of ``rows``: their values and ``indptr``."""
    lengths = (indptr[1:] - indptr[:-1])[rows]
    return values[positions(indptr[rows], lengths)], offsets(lengths)


def row_sums(values: NDArray, indptr: NDArray) -> NDArray[np.int64]:
    """Sum of each row of integers."""
    return np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])[indptr])


def distinct(codes: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct values of non-negative integers, and which of them each is; without sorting where there are few."""
    most = int(codes.max(initial=0))
    if most > max(1 << 16, 4 * len(codes)):
        values, which = np.unique(codes, return_inverse=True)
        return values.astype(np.int64), which
    there = np.zeros(most + 1, bool)
    there[codes] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[codes]
