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
    from c2s_jax.encoders.binning_kernel import bin_cells  # brings numba

    values = np.asarray(values, np.float32)  # as the reference holds them
    bins = np.empty(len(values), np.int64)
    each = np.ascontiguousarray(np.broadcast_to(np.asarray(uniforms, np.float64), values.shape))
    bin_cells(values, np.asarray(indptr, np.int64), each, np.linspace(0, 1, n_bins - 1), bins)
    return bins
