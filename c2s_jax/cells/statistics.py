"""What has to be known of all cells of a data set before one of them can be normalised, gathered block by block."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .errors import CellDataError
from .genes import GeneColumns

_PROBE_CELLS = 64


@dataclass(frozen=True)
class Entries:
    """Some entries of a matrix: cells int64 [N], genes int64 [N], values float64 [N]."""

    cells: np.ndarray
    genes: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class CellStatistics:
    """Statistics of C consecutive cells and G genes of a data set.

    Attributes
    ----------
    n_genes
        int32 [C]; expressed genes of each cell.
    totals
        float64 [C]; sum of each cell's values as read.
    gene_cells
        int64 [G]; cells that express each gene, among those with at least `min_genes` genes.
    rare
        Those cells' entries of genes that fewer than `min_cells` of them express.
    largest
        The largest value.
    whole
        Whether all values are whole numbers.
    probe_lengths, probe_values
        int64 [P] and float64 [N]; the values of the cells in the data set's sample.
    """

    n_genes: np.ndarray
    totals: np.ndarray
    gene_cells: np.ndarray
    rare: Entries
    largest: float
    whole: bool
    probe_lengths: np.ndarray
    probe_values: np.ndarray


def measure(
    matrix: sparse.csr_matrix,
    columns: GeneColumns,
    *,
    first: int = 0,
    n_cells: int | None = None,
    min_genes: int = 0,
    min_cells: int = 0,
) -> CellStatistics:
    """Statistics of one block of a data set.

    Parameters
    ----------
    matrix
        CSR [C, columns], canonical, of finite values not below 0.
    columns
        The names of its columns.
    first, n_cells
        Row of the data set the block begins at, and the data set's number of cells; None: the block is all of
        it.
    min_genes, min_cells
        See `select`.
    """
    n_genes, genes = _structure(matrix, columns)
    kept = np.repeat(n_genes >= min_genes, n_genes) if min_genes else slice(None)
    gene_cells = np.bincount(genes[kept], minlength=len(columns.names))
    totals = matrix @ np.ones(matrix.shape[1])
    rare = Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    if min_cells > 1:
        rare = _rare(columns.merged(matrix), gene_cells < min_cells, n_genes >= min_genes, first)
    probed = probe_rows(matrix.shape[0] if n_cells is None else n_cells) - first
    probe = matrix[probed[(probed >= 0) & (probed < matrix.shape[0])]]
    return CellStatistics(
        n_genes.astype(np.int32),
        totals,
        gene_cells,
        rare,
        float(matrix.data.max(initial=0)),
        matrix.dtype.kind in "iu" or np.array_equal(matrix.data, np.floor(matrix.data)),
        np.diff(probe.indptr).astype(np.int64),
        probe.data.astype(np.float64),
    )


def merge_statistics(parts: Sequence[CellStatistics]) -> CellStatistics:
    """Statistics of consecutive blocks as one."""
    if len(parts) == 1:
        return parts[0]
    return CellStatistics(
        np.concatenate([p.n_genes for p in parts]),
        np.concatenate([p.totals for p in parts]),
        np.sum([p.gene_cells for p in parts], axis=0),
        Entries(
            np.concatenate([p.rare.cells for p in parts]),
            np.concatenate([p.rare.genes for p in parts]),
            np.concatenate([p.rare.values for p in parts]),
        ),
        max(p.largest for p in parts),
        all(p.whole for p in parts),
        np.concatenate([p.probe_lengths for p in parts]),
        np.concatenate([p.probe_values for p in parts]),
    )


@dataclass(frozen=True)
class Selection:
    """What is left of a data set after quality control.

    Attributes
    ----------
    cells
        bool [C].
    genes
        bool [G].
    n_genes, totals
        As in `CellStatistics`, over the genes that are left.
    """

    cells: np.ndarray
    genes: np.ndarray
    n_genes: np.ndarray
    totals: np.ndarray


def select(statistics: CellStatistics, *, min_genes: int = 0, min_cells: int = 0) -> Selection:
    """Leave out cells with fewer than `min_genes` genes, then genes that fewer than `min_cells` of the others express.

    The same limits must have been given to `measure`. This is what scanpy's `filter_cells` and then
    `filter_genes` do.

    Raises
    ------
    CellDataError
        If nothing is left.
    """
    cells = statistics.n_genes >= min_genes
    genes = statistics.gene_cells >= min_cells
    if not cells.any() or not genes.any():
        what = f"cell has min_genes={min_genes}" if not cells.any() else f"gene is in min_cells={min_cells}"
        raise CellDataError(f"no {what}: nothing is left; lower the limit")
    n_genes, totals = statistics.n_genes.copy(), statistics.totals.copy()
    lost = ~genes[statistics.rare.genes]
    at = statistics.rare.cells[lost]
    np.subtract.at(n_genes, at, 1)
    np.subtract.at(totals, at, statistics.rare.values[lost])
    return Selection(cells, genes, n_genes, totals)


def probe_rows(n_cells: int) -> np.ndarray:
    """Rows of the sample from which scales are found, spread over the data set."""
    return np.arange(0, n_cells, max(1, n_cells // _PROBE_CELLS))[:_PROBE_CELLS]


def _structure(matrix: sparse.csr_matrix, columns: GeneColumns) -> tuple[np.ndarray, np.ndarray]:
    """Number of expressed genes of each cell, int64 [C], and the genes, cell by cell."""
    if columns.place is None:
        return np.diff(matrix.indptr).astype(np.int64), matrix.indices
    ones = np.ones(matrix.nnz, np.int32)
    entries = (ones, columns.place[matrix.indices], matrix.indptr.copy())
    expressed = sparse.csr_matrix(entries, shape=(matrix.shape[0], len(columns.names)))
    expressed.sum_duplicates()
    return np.diff(expressed.indptr).astype(np.int64), expressed.indices


def _rare(merged: sparse.csr_matrix, rare: np.ndarray, kept: np.ndarray, first: int) -> Entries:
    cells = np.repeat(np.arange(merged.shape[0]), np.diff(merged.indptr))
    chosen = rare[merged.indices] & kept[cells]
    return Entries(cells[chosen] + first, merged.indices[chosen].astype(np.int64), merged.data[chosen].astype(float))
