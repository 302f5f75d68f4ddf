"""From an AnnData to log10(1 + normalised) expression, checked, with a report of what was assumed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import anndata as ad
import numpy as np
from scipy import sparse

from .conversion import conversion
from .errors import CellDataError, shown
from .genes import Duplicates, GeneColumns, gene_columns, gene_symbols
from .ranking import Ranked, Ties, rank_by
from .scales import Scale
from .source import as_csr, check_values, select_source
from .statistics import CellStatistics, measure, merge_statistics
from .vocabulary import GeneVocabulary

EmptyCells = Literal["error", "keep", "drop"]

BLOCK_CELLS = 2048
"""Cells read and converted together; results do not depend on it."""


@dataclass(frozen=True)
class Expression:
    """Expression of C cells and G genes.

    Attributes
    ----------
    matrix
        CSR float32 [C, G], log10(1 + normalised expression); columns sorted, no stored zeros.
    cell_ids
        str [C].
    genes
        The G upper-cased gene names.
    rows
        int64 [C]; the row of `adata` each cell comes from (all of them, unless empty cells were dropped).
    report
        What was assumed and repaired, in sentences.
    scale
        The scale the values were read on, in words.
    target_sum
        Total that counts were normalised to; None if the values were normalised already.
    ranking_values
        [nnz], as read and unrounded: what ranks are made of, so that conversion can neither merge nor swap
        values.
    """

    matrix: sparse.csr_matrix
    cell_ids: np.ndarray
    genes: GeneVocabulary
    rows: np.ndarray
    report: list[str]
    scale: str
    target_sum: float | None
    ranking_values: np.ndarray = field(repr=False)

    @property
    def log10(self) -> bool:
        """Always True: the values are log10(1 + normalised)."""
        return True

    def rank(self, *, top_k: int | None = None, ties: Ties = "hash", seed: int = 0) -> Ranked:
        """Rank genes by falling expression as read; `values` are those of `matrix`. See `rank_cells`."""
        names = self.genes.names
        return rank_by(self.matrix, self.ranking_values, self.cell_ids, names, top_k=top_k, ties=ties, seed=seed)


def expression_matrix(
    adata: ad.AnnData,
    *,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_column: str | None = None,
    scale: Scale = "auto",
    target_sum: float | None = None,
    duplicates: Duplicates = "error",
    empty_cells: EmptyCells = "error",
) -> Expression:
    """Read, check and convert the expression of `adata`, which is not changed.

    Parameters
    ----------
    adata
        Any AnnData: dense, CSR or CSC, in memory or backed by its file.
    layer, use_raw
        Read `adata.layers[layer]` or `adata.raw`; `adata.X` if neither is given.
    gene_column
        Column of `var` with the gene symbols. By default `var_names`, or, where those are Ensembl
        identifiers, a column known to hold symbols.
    scale
        Of the values read: "counts" (will be normalised), "normalized" (no logarithm yet), "log1p" (natural,
        or the base that `adata.uns["log1p"]` has), "log2p" (log2(1 + x), also for L1000's levels 3
        and 4 of log2 intensities), "log10p" (used as is), or "auto" to find out.
    target_sum
        Total of a cell's counts after normalisation; None: the median over the cells of `adata`, so that it
        depends on which cells are in it. Values on other scales are not normalised again.
    duplicates
        Genes of equal name, also by upper-casing: "error", or "sum" to add up their expression (on the linear
        scale).
    empty_cells
        Cells that express nothing: "error", "keep" (empty sentence) or "drop".

    Returns
    -------
    Expression

    Raises
    ------
    CellDataError
        If values are NaN, infinite or negative (scaled), names are unusable, a choice above does not exist.
    """
    check_empty_cells(empty_cells)
    report: list[str] = []
    name, held, var = select_source(adata, layer, use_raw)
    matrix = as_csr(held, name)
    if not all(matrix.shape):
        raise CellDataError(f"adata.{name} has {matrix.shape[0]} cells and {matrix.shape[1]} genes")
    check_values(adata, name, matrix, var)
    columns = gene_columns(gene_symbols(var, gene_column, report), duplicates, report)
    statistics = _measured(matrix, columns)
    rows = kept_rows(statistics.n_genes, adata.obs_names.__getitem__, name, empty_cells, report)
    totals = statistics.totals[rows]
    found = conversion(statistics, totals, columns, scale=scale, log1p_base=_log1p_base(adata), target_sum=target_sum)
    merged = found.merged(matrix if len(rows) == matrix.shape[0] else matrix[rows])
    report.insert(0, found.sentence(name, target_sum))
    cell_ids = np.asarray(adata.obs_names, dtype=str)[rows]
    if len(set(cell_ids.tolist())) < len(cell_ids):
        report.append("some cells share an id (obs_names): ties of such cells are broken alike")
    # not the index arrays of adata itself: a caller may change the result in place
    values = (found.log10(merged, totals), merged.indices.copy(), merged.indptr.copy())
    log10 = sparse.csr_matrix(values, shape=merged.shape)
    genes = GeneVocabulary(columns.names)
    return Expression(log10, cell_ids, genes, rows, report, found.merged_scale.text, found.target_sum, merged.data)


def _measured(matrix: sparse.csr_matrix, columns: GeneColumns) -> CellStatistics:
    n_cells = matrix.shape[0]
    starts = range(0, n_cells, BLOCK_CELLS)
    blocks = (measure(matrix[a : a + BLOCK_CELLS], columns, first=a, n_cells=n_cells) for a in starts)
    return merge_statistics(list(blocks))


def check_empty_cells(empty_cells: str) -> None:
    """Raise `CellDataError` for what is no choice."""
    if empty_cells not in ("error", "keep", "drop"):
        raise CellDataError(f"empty_cells must be 'error', 'keep' or 'drop', it is {empty_cells!r}")


def _log1p_base(adata: ad.AnnData) -> Any:
    # AnnData does not write a base of None: an entry without one is scanpy's default, the natural logarithm
    recorded = adata.uns.get("log1p", "absent")
    return recorded.get("base") if hasattr(recorded, "get") else "absent"


def kept_rows(
    n_genes: np.ndarray, cell_name: Callable[[int], str], name: str, empty_cells: EmptyCells, report: list[str]
) -> np.ndarray:
    """Rows that stay, int64; `n_genes` [C] says which cells express nothing. Adds to `report` what was done."""
    empty = np.flatnonzero(n_genes == 0)
    if not len(empty):
        return np.arange(len(n_genes))
    text = (
        f"{len(empty)} of {len(n_genes)} cells express no gene in adata.{name}: {shown(map(cell_name, empty.tolist()))}"
    )
    if empty_cells == "error":
        raise CellDataError(
            f"{text}; remove them (scanpy.pp.filter_cells(adata, min_genes=1)), "
            "or pass empty_cells='drop' or empty_cells='keep'"
        )
    report.append(f"{text}; {'they are dropped' if empty_cells == 'drop' else 'their sentences are empty'}")
    return np.flatnonzero(n_genes) if empty_cells == "drop" else np.arange(len(n_genes))
