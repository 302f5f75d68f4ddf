"""Ragged arrays: rows one after the other in ``values``, row i at ``indptr[i]:indptr[i + 1]``."""

import numpy as np
from numpy.typing import NDArray


def offsets(lengths: NDArray) -> NDArray[np.int64]:
    """``indptr`` of rows with these lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def positions(starts: NDArray, lengths: NDArray) -> NDArray[np.int64]:
    """Concatenation of ``arange(start, start + length)`` over all rows."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if ends.size else 0
    return np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths) + np.arange(total)
