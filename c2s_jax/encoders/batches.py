"""Rows of different lengths as batches of few shapes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SHORTEST = 16


def length_buckets(lengths: NDArray[np.integer], longest: int, batch_size: int) -> Iterator[tuple[NDArray, int]]:
    """Which rows go together, and the length they are padded to.

    Rows are taken in order of their lengths. Padded lengths are powers of two and those halfway between, from 16 up,
    and ``longest``; so a program that is compiled once a shape is compiled a dozen times at most, and less than a third
    of a batch is padding.

    Parameters
    ----------
    lengths
        [N], none above ``longest``.
    batch_size
        Most rows a batch.
    """
    sizes = [n for k in range(4, 31) for n in (1 << k, 3 << (k - 1)) if n < longest] + [longest]
    bucket = np.searchsorted(sizes, lengths)
    order = np.lexsort((np.arange(len(lengths)), lengths))
    for i in np.unique(bucket):
        rows = order[bucket[order] == i]
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size], sizes[i]
