"""Expression as scGPT reads it: the quantile bin of each value among the cell's own."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

N_BINS = 51  # bin 0 is for absent genes

Ties = Literal["seeded", "midpoint"]
"""Where a value goes that lies on several edges: to one of their bins by a keyed draw, or to the one in the middle."""


def bin_values(
    values: NDArray, indptr: NDArray[np.integer], uniforms: NDArray | float, n_bins: int = N_BINS
) -> NDArray[np.int64]:
    """Bins 1 … n_bins − 1 of the nonzero values of each cell.

    Edges are ``n_bins − 1`` quantiles of the cell's values, from minimum to maximum, interpolated linearly. Counts have
    few distinct values, so edges coincide; a value on ``m`` of them could be in any of ``m`` bins, and ``uniforms``
    picks one: with u it is ``ceil(left − u · (left − right))``, where ``left`` edges are at most the value and
    ``right`` below it, as in scGPT's own code (Cui et al. 2024, doi:10.1038/s41592-024-02201-0).

    Parameters
    ----------
    values, indptr
        Of a CSR matrix [C, G] without stored zeros.
    uniforms
        In [0, 1), one a value or one for all: 0 takes the last of the bins, 0.5 the middle.

    Returns
    -------
    int64, aligned with ``values``.
    """
    values = np.asarray(values, np.float32)  # as the reference holds them
    counts = np.diff(indptr)
    cells = np.repeat(np.arange(len(counts)), counts)
    edges = _quantiles(values[np.lexsort((values, cells))], indptr, n_bins - 1)
    left, right = np.zeros(len(values), np.int16), np.zeros(len(values), np.int16)
    for edge in edges.T:
        at = edge[cells]
        left += at <= values
        right += at < values
    return np.ceil(uniforms * (right - left) + left).astype(np.int64)


def _quantiles(ordered: NDArray[np.float32], indptr: NDArray[np.integer], n: int) -> NDArray[np.float64]:
    """``np.quantile(cell, np.linspace(0, 1, n))`` of every cell, bit for bit; NaN for a cell without values.

    ``ordered`` holds each cell's values in rising order.
    """
    counts = np.diff(indptr)[:, None]
    virtual = (counts - 1) * np.linspace(0, 1, n)
    before = np.floor(virtual)
    t = virtual - before
    low = np.clip(before.astype(np.int64), 0, np.maximum(counts - 1, 0))
    high = np.minimum(low + 1, np.maximum(counts - 1, 0))
    if not len(ordered):
        return np.full(virtual.shape, np.nan)
    last = len(ordered) - 1
    a, b = (ordered[np.minimum(indptr[:-1, None] + i, last)] for i in (low, high))
    step = b - a  # in float32, as NumPy does
    edges = np.where(t >= 0.5, b - step * (1 - t), a + step * t)
    return np.where(counts > 0, edges, np.nan)
