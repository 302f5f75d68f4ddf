"""Packing plan: which example goes into which row."""

import numpy as np
from numpy.typing import NDArray


def plan_rows(lengths: NDArray[np.int64], rows: int, seq_len: int) -> NDArray[np.int64]:
    """Place examples into ``rows`` rows of ``seq_len`` tokens.

    Examples are taken in order as long as they fit in total, then placed by falling length, each into the fullest
    row that still holds it, of equally full rows into the first (best-fit decreasing, Johnson et al. 1974). What no
    row holds is left out. The time is about that of sorting the lengths.

    Parameters
    ----------
    lengths
        Tokens of each example, int [N].

    Returns
    -------
    int64 [N]: row of each example, -1 where left out (too long, or no room).
    """
    from c2s_jax.data.packing_kernel import best_fit  # numba takes half a second to import

    lengths = np.asarray(lengths, np.int64)
    row_of = np.full(len(lengths), -1, np.int64)
    fits = np.flatnonzero(lengths <= seq_len)
    taken = fits[np.cumsum(lengths[fits]) <= rows * seq_len]
    taken = taken[np.argsort(-lengths[taken], kind="stable")]
    row_of[taken] = best_fit(lengths[taken], rows, seq_len)
    return row_of
