"""Split of cells into train, validation and test, keyed by cell id and stratified by label; whole groups, if asked."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from c2s_jax.cells.ranking import hash_strings


def cell_hashes(names: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """Keyed hashes of cell ids (or names of groups), on which their split depends; uint64 [len(names)]."""
    return hash_strings(names, seed=seed, domain="split")


def assign_cells(hashes: NDArray[np.uint64], strata: ArrayLike, fractions: Sequence[float]) -> NDArray[np.int8]:
    """Assign each cell to a split.

    Each split gets its share of all cells, rounded to the nearest integer, and of every stratum its share to
    within about one cell. Which cells of a stratum go where depends on their hashes, so neither on row order nor on any
    random state.

    Parameters
    ----------
    hashes : uint64 [C]
        See `cell_hashes`.
    strata : int or str [C]
    fractions : sequence of float [S]
        Shares of the splits; they sum to one.

    Returns
    -------
    int8 [C]
        Number of the split of each cell.
    """
    codes = np.unique(np.asarray(strata), return_inverse=True)[1].reshape(-1)
    remaining = np.lexsort((hashes, codes))
    splits = np.zeros(len(hashes), dtype=np.int8)
    # The last split is drawn first; what nobody drew is the first split.
    totals = _totals(len(hashes), np.asarray(fractions, dtype=np.float64))
    for split, total in reversed(list(enumerate(totals))[1:]):
        drawn = _spread(len(remaining), total, codes[remaining])
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


def assign_groups(
    counts: sparse.csr_matrix, hashes: NDArray[np.uint64], fractions: Sequence[float], what: str
) -> NDArray[np.int8]:
    """Assign whole groups of cells to splits; each gets about its share of all cells and of each stratum.

    The largest group comes first, and each goes where the squared differences from fair shares, relative to the size
    of each stratum, grow least; equally large ones come in the order of their hashes. A split that got nothing then
    takes the group that is missed least elsewhere.

    Parameters
    ----------
    counts : CSR [G, L]
        Cells of each group in each stratum; strata may overlap, and the first one is all cells.
    hashes : uint64 [G]
        See `cell_hashes`.
    fractions : sequence of float [S]
        Shares of the splits.
    what : str
        What a group is, for messages.

    Returns
    -------
    int8 [G]
        Number of the split of each group.

    Raises
    ------
    ValueError
        If there are fewer groups than splits with a share.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    wanted = np.flatnonzero(shares > 0)
    if counts.shape[0] < len(wanted):
        raise ValueError(
            f"cannot split by {what}: there are {counts.shape[0]} to go into {len(wanted)} splits; "
            "give some splits no share (--split=80/0/20), or split by something else"
        )
    sizes = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    beyond = -np.outer(shares, sizes)  # cells each split has more than its fair share
    splits = np.zeros(counts.shape[0], dtype=np.int8)
    for group in np.lexsort((hashes, -counts[:, 0].toarray().ravel())).tolist():
        entries = slice(counts.indptr[group], counts.indptr[group + 1])
        strata, cells = counts.indices[entries], counts.data[entries].astype(np.float64)
        growth = ((2 * beyond[:, strata] + cells) * cells / sizes[strata]).sum(axis=1)
        splits[group] = wanted[np.argmin(growth[wanted])]
        beyond[splits[group], strata] += cells
    for split in wanted.tolist():
        if not (splits == split).any():
            _give_one(split, splits, counts, hashes, beyond)
    return splits


def _give_one(
    split: int,
    splits: NDArray[np.int8],
    counts: sparse.csr_matrix,
    hashes: NDArray[np.uint64],
    beyond: NDArray[np.float64],
) -> None:
    """Move one group to an empty split, in place, from a split that has several."""
    weights = 1 / np.maximum(1, np.asarray(counts.sum(axis=0), dtype=np.float64).ravel())
    own = (counts.multiply(counts) @ weights).ravel()
    gain = np.asarray(counts @ (beyond * weights).T)  # [G, S]
    growth = gain[:, split] - gain[np.arange(len(splits)), splits] + own
    growth[np.bincount(splits)[splits] < 2] = np.inf
    moved = int(np.lexsort((hashes, growth))[0])
    cells = counts[moved].toarray().ravel()
    beyond[splits[moved]] -= cells
    beyond[split] += cells
    splits[moved] = split
