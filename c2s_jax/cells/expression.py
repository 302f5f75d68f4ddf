"""From an AnnData to log10(1 + normalised) expression, checked, with a report of what was assumed."""

from dataclasses import dataclass, field
from typing import Any, Literal

import anndata as ad
import numpy as np
from scipy import sparse

from .errors import CellDataError, shown
from .genes import Duplicates, gene_symbols, merge_duplicates
from .ranking import Ranked, Ties, ranking_order
from .scales import Scale, SourceScale, find_scale, linear, to_log10
from .source import as_csr, check_values, select_source
from .vocabulary import GeneVocabulary

EmptyCells = Literal["error", "keep", "drop"]


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
        order = ranking_order(self.matrix, self.ranking_values, self.cell_ids, self.genes.names, ties=ties, seed=seed)
        indptr = self.matrix.indptr.astype(np.int64)
        ranked = Ranked(indptr, self.matrix.indices[order].astype(np.int32), self.matrix.data[order])
        return ranked if top_k is None else ranked.top(top_k)


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
        or the base that `adata.uns["log1p"]` has), "log10p" (log10(1 + x), used as is), or "auto" to find
        out.
    target_sum
        Total of a cell's counts after normalisation; None: the median over the cells of `adata`, so that it
        depends on which cells are in it.
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
    _check_options(target_sum, empty_cells)
    report: list[str] = []
    name, held, var = select_source(adata, layer, use_raw)
    matrix = as_csr(held, name)
    if not all(matrix.shape):
        raise CellDataError(f"adata.{name} has {matrix.shape[0]} cells and {matrix.shape[1]} genes")
    check_values(adata, name, matrix, var)
    names = gene_symbols(var, gene_column, report)
    found = find_scale(matrix, scale, _log1p_base(adata))
    matrix, symbols, found = _merged(matrix, names, found, duplicates, report)
    rows = _rows(matrix, adata, name, empty_cells, report)
    if len(rows) < matrix.shape[0]:
        matrix = matrix[rows]
    values, target = to_log10(matrix, found, target_sum)
    report.insert(0, _scale_sentence(name, found, target))
    cell_ids = np.asarray(adata.obs_names, dtype=str)[rows]
    if len(set(cell_ids.tolist())) < len(cell_ids):
        report.append("some cells share an id (obs_names): ties of such cells are broken alike")
    # not the index arrays of adata itself: a caller may change the result in place
    log10 = sparse.csr_matrix((values, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
    return Expression(log10, cell_ids, GeneVocabulary(symbols), rows, report, found.text, target, matrix.data)


def _check_options(target_sum: float | None, empty_cells: str) -> None:
    if target_sum is not None and not (np.isfinite(target_sum) and target_sum > 0):
        raise CellDataError(f"target_sum must be a positive number, it is {target_sum}")
    if empty_cells not in ("error", "keep", "drop"):
        raise CellDataError(f"empty_cells must be 'error', 'keep' or 'drop', it is {empty_cells!r}")


def _log1p_base(adata: ad.AnnData) -> Any:
    # AnnData does not write a base of None: an entry without one is scanpy's default, the natural logarithm
    recorded = adata.uns.get("log1p", "absent")
    return recorded.get("base") if hasattr(recorded, "get") else "absent"


def _merged(
    matrix: sparse.csr_matrix,
    names: list[str],
    scale: SourceScale,
    duplicates: Duplicates,
    report: list[str],
) -> tuple[sparse.csr_matrix, list[str], SourceScale]:
    if len({name.upper() for name in names}) == len(names) or scale.name != "log":
        return *merge_duplicates(matrix, names, duplicates, report), scale
    opened = matrix.astype(np.float64)
    opened.data = linear(opened.data, scale)
    merged, unique = merge_duplicates(opened, names, duplicates, report)
    return merged, unique, SourceScale("normalized", why=f"after undoing {scale.text}: {scale.why}")


def _rows(
    matrix: sparse.csr_matrix, adata: ad.AnnData, name: str, empty_cells: EmptyCells, report: list[str]
) -> np.ndarray:
    lengths = np.diff(matrix.indptr)
    empty = np.flatnonzero(lengths == 0)
    if not len(empty):
        return np.arange(len(lengths))
    listed = shown(adata.obs_names[empty])
    text = f"{len(empty)} of {len(lengths)} cells express no gene in adata.{name}: {listed}"
    if empty_cells == "error":
        raise CellDataError(
            f"{text}; remove them (scanpy.pp.filter_cells(adata, min_genes=1)), "
            "or pass empty_cells='drop' or empty_cells='keep'"
        )
    report.append(f"{text}; {'they are dropped' if empty_cells == 'drop' else 'their sentences are empty'}")
    return np.flatnonzero(lengths) if empty_cells == "drop" else np.arange(len(lengths))


def _scale_sentence(name: str, scale: SourceScale, target: float | None) -> str:
    to = f", normalised to a total of {target:g} a cell" if target is not None else ""
    return f"adata.{name} is read as {scale.text} ({scale.why}){to}; expression is log10(1 + normalised)"
