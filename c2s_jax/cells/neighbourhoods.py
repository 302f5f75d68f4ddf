"""Cells in space: who lies within a radius of whom, cells from outside it, and square blocks for splitting."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from .errors import CellDataError
from .ranking import mix

# More than this, and the radius is in another unit than the coordinates.
MAX_MEAN_NEIGHBOURS = 1000
_PROBE_CELLS = 2000
_ODD = np.uint64(0x9E3779B97F4A7C15)


def radius_graph(
    coordinates: ArrayLike, radius: float, dataset: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Neighbours of every cell: the other cells of its data set at a distance of at most `radius`.

    Parameters
    ----------
    coordinates : float [C, D]
        Positions, D = 2 or 3.
    radius : float
        In the unit of `coordinates` (Rizvi et al. 2025: 20 µm).
    dataset : int or str [C], optional
        Data set (section) of each cell; positions of one are compared with one another only. None: all cells are
        of one.

    Returns
    -------
    (indptr, indices)
        int64 [C+1] and int32 [N]: the neighbours of cell i are ``indices[indptr[i]:indptr[i + 1]]``, in rising order,
        without i itself. The graph is symmetric.

    Raises
    ------
    CellDataError
        If positions are missing or not finite, the radius is not positive, or so large that cells have more than
        1000 neighbours on average.
    """
    points = _positions(coordinates)
    if not (np.isfinite(radius) and radius > 0):
        raise CellDataError(f"radius must be a positive number in the unit of the coordinates, it is {radius}")
    _, codes = _datasets(dataset, len(points))
    pairs = [
        cells[_pairs(points[cells], float(radius))]
        for cells in np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes)))
        if len(cells) > 1
    ]
    i, j = np.concatenate([np.zeros((0, 2), np.int64), *pairs]).T
    once = sparse.csr_matrix((np.ones(len(i), bool), (i, j)), shape=(len(points), len(points)))
    graph = once + once.T
    graph.sort_indices()
    return graph.indptr.astype(np.int64), graph.indices.astype(np.int32)


def cells_outside(
    indptr: NDArray[np.int64],
    indices: NDArray[np.integer],
    cells: ArrayLike,
    n: int,
    *,
    dataset: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Draw cells of the same data set that are not neighbours, with replacement.

    What is drawn for a cell depends on its number, the graph and the seed, not on which others are asked for.

    Parameters
    ----------
    indptr, indices
        As `radius_graph` returns them, C cells.
    cells : int [A]
        Cells to draw for.
    n : int
        How many to draw for each.
    dataset : int or str [C], optional
        As for `radius_graph`.
    seed : int
        Another seed draws others.

    Returns
    -------
    int64 [A, n]
        Each uniform among the cells outside the radius; -1 where the whole data set lies within it.
    """
    cells, n_cells = np.asarray(cells, np.int64).reshape(-1), len(indptr) - 1
    if cells.size and (cells.min() < 0 or cells.max() >= n_cells):
        raise CellDataError(f"cells {cells.min()} … {cells.max()} asked for, there are those from 0 to {n_cells - 1}")
    _, codes = _datasets(dataset, n_cells)
    sizes = np.bincount(codes, minlength=1)
    members, starts = np.argsort(codes, kind="stable"), (np.cumsum(sizes) - sizes)[codes]
    place = np.empty(n_cells, np.int64)  # of each cell among those of its data set
    place[members] = np.arange(n_cells) - starts[members]
    near, near_indptr = _with_own(indptr, indices, cells)
    free = sizes[codes[cells]] - np.diff(near_indptr)
    drawn = _below(free[:, None], cells, n, seed)
    # The k-th cell outside is the k-th of all, moved on by the near ones before it.
    row = np.repeat(np.arange(len(cells)), np.diff(near_indptr))
    outside_before = place[near] - (np.arange(len(near)) - near_indptr[row])
    rows = np.arange(len(cells))[:, None]
    passed = np.searchsorted(row * n_cells + outside_before, rows * n_cells + drawn, side="right") - near_indptr[rows]
    chosen = members[np.minimum(starts[cells][:, None] + drawn + passed, n_cells - 1)]
    return np.where(free[:, None] > 0, chosen, -1)


def spatial_blocks(coordinates: ArrayLike, size: float, dataset: ArrayLike | None = None) -> NDArray[np.str_]:
    """Squares of a grid, for splits in which near cells stay together.

    The grid begins at the origin of the coordinates, so the square of a cell depends on its position alone.

    Parameters
    ----------
    coordinates : float [C, D]
        The first two dimensions count.
    size : float
        Side of a square, in the unit of `coordinates`. Take many times the radius of a neighbourhood: cells near an
        edge have neighbours beyond it.
    dataset : int or str [C], optional
        As for `radius_graph`; data sets share no block.

    Returns
    -------
    str [C]
        Name of each cell's block, "column:row" after the data set's name, if any.
    """
    points = _positions(coordinates)
    if not (np.isfinite(size) and size > 0):
        raise CellDataError(f"the side of a block must be a positive number, it is {size}")
    names, codes = _datasets(dataset, len(points))
    squares = np.column_stack([codes, np.floor(points[:, :2] / size).astype(np.int64)])
    unique, block = np.unique(squares, axis=0, return_inverse=True)
    prefix = [f"{name}:" if dataset is not None else "" for name in names.tolist()]
    labels = np.array([f"{prefix[code]}{column}:{row}" for code, column, row in unique.tolist()], dtype=np.str_)
    return labels[block.reshape(-1)]


def _positions(coordinates: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(coordinates, np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise CellDataError(f"coordinates must be cells × 2 or 3 dimensions, their shape is {points.shape}")
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(wrong):
        raise CellDataError(
            f"{len(wrong)} of {len(points)} cells have no finite position (first: row {wrong[0]}, "
            f"{points[wrong[0]].tolist()}); remove those cells"
        )
    return points


def _datasets(dataset: ArrayLike | None, n_cells: int) -> tuple[NDArray, NDArray[np.int64]]:
    """Names of the data sets, and the number of each cell's."""
    given = np.zeros(n_cells, np.int64) if dataset is None else np.asarray(dataset)
    if given.shape != (n_cells,):
        raise CellDataError(f"dataset has the shape {given.shape}, there are {n_cells} cells")
    names, codes = np.unique(given, return_inverse=True)
    return names, codes.astype(np.int64)


def _pairs(points: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Pairs of near points, each once, int64 [P, 2]."""
    tree = cKDTree(points)
    probe = points[:: max(1, len(points) // _PROBE_CELLS)]
    mean = float(np.mean(tree.query_ball_point(probe, radius, return_length=True))) - 1
    if mean > MAX_MEAN_NEIGHBOURS:
        raise CellDataError(
            f"within a radius of {radius:g} a cell has {mean:,.0f} neighbours on average, of {len(points):,} cells "
            f"that span {np.ptp(points, axis=0).round(3).tolist()}; is the radius in the unit of the coordinates?"
        )
    return tree.query_pairs(radius, output_type="ndarray").astype(np.int64)


def _with_own(
    indptr: NDArray[np.int64], indices: NDArray[np.integer], cells: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbours of `cells` and each cell itself, ragged, in rising order."""
    degrees = np.diff(indptr)[cells]
    row = np.repeat(np.arange(len(cells)), degrees)
    entries = np.arange(len(row)) + (indptr[cells] - _offsets(degrees)[:-1])[row]
    near = np.concatenate([indices[entries].astype(np.int64), cells])
    return near[np.lexsort((near, np.append(row, np.arange(len(cells)))))], _offsets(degrees + 1)


def _below(bound: NDArray[np.int64], cells: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """Whole numbers from 0 to bound - 1, keyed by cell, place among n, and seed; int64 [len(cells), n]."""
    key = mix(np.array([seed], np.int64).astype(np.uint64) + _ODD)
    key = mix(cells.astype(np.uint64)[:, None] * _ODD + key)
    key = mix(key + np.arange(1, n + 1, dtype=np.uint64) * _ODD)
    unit = (key >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (unit * bound).astype(np.int64)


def _offsets(lengths: NDArray) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
