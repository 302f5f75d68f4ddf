"""Split of cells into train, validation and test, keyed by cell id and stratified by label."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.cells.ranking import hash_strings


def assign_splits(
    cell_ids: Sequence[str],
    labels: Sequence[str] | NDArray | None,
    fractions: Sequence[float],
    seed: int,
) -> NDArray[np.int8]:
    """Assign each cell to a split.

    Each split gets its share of all cells, rounded to the nearest integer, and of every label its share to
    within about one cell. Which cells of a label go where depends on the keyed hash of their ids, so neither
    on row order nor on any random state.

    Parameters
    ----------
    cell_ids : sequence of str [C]
        Unique.
    labels : sequence of str [C] or None
        Strata; None for no stratification.
    fractions : sequence of float [S]
        Shares of the splits; they sum to one.
    seed : int

    Returns
    -------
    int8 [C]
        Number of the split of each cell.

    Raises
    ------
    ValueError
        If the fractions are not shares that sum to one, or two cells share an id.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.ndim != 1 or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"split fractions {list(fractions)} must be non-negative and sum to 1")
    n_cells = len(cell_ids)
    if len(set(cell_ids)) != n_cells:
        repeated = pd.Series(list(cell_ids)).duplicated()
        raise ValueError(f"cell id {cell_ids[int(repeated.argmax())]!r} occurs more than once: ids must be unique")
    strata = np.zeros(n_cells, dtype=np.int64)
    if labels is not None:
        strata = np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1]
    by_stratum = np.lexsort((hash_strings(cell_ids, seed=seed, domain="split"), strata))
    splits = np.zeros(n_cells, dtype=np.int8)
    remaining = by_stratum
    # The last split is drawn first; what nobody drew is the first split.
    for split, total in reversed(list(enumerate(_totals(n_cells, shares)))[1:]):
        drawn = _spread(len(remaining), total, strata[remaining])
        splits[remaining[drawn]] = split
        remaining = remaining[~drawn]
    return splits


def _totals(n_cells: int, shares: NDArray[np.float64]) -> list[int]:
    ends = np.floor(np.cumsum(shares) * n_cells + 0.5).astype(int)
    ends[-1] = n_cells
    return np.diff(ends, prepend=0).tolist()


def _spread(n: int, total: int, strata: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark `total` of `n` cells, evenly over runs of equal stratum; within a stratum its first cells.

    A stratum that occupies positions [a, b) gets floor(b·total/n) − floor(a·total/n) cells, which differs
    from its fair share by less than one, and all strata together get exactly `total`.
    """
    if n == 0:
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.diff(strata, prepend=strata[0] - 1))
    ends = np.append(starts[1:], n)
    quota = ends * total // n - starts * total // n
    within = np.arange(n) - np.repeat(starts, ends - starts)
    return within < np.repeat(quota, ends - starts)
