"""Cells of an AnnData, block by block, as ranked genes of a model's vocabulary. Only one block is in memory."""

import dataclasses
from collections.abc import Iterator

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells import CellDataError, GeneVocabulary, Ranked, rank_cells
from c2s_jax.cells.errors import shown
from c2s_jax.cells.genes import gene_symbols
from c2s_jax.cells.source import alternatives, as_csr, bad_values, select_source
from c2s_jax.data.ragged import offsets, row_numbers, take_rows

BLOCK_CELLS = 1024
LAYER = "expression_layer"  # what a layer of expression is called here, where ``layer`` is one of the model


@dataclasses.dataclass(frozen=True)
class Block:
    """Cells ``start … stop`` of an AnnData: their genes by falling expression, as ids of the vocabulary."""

    start: int
    stop: int
    genes: NDArray[np.int32]
    indptr: NDArray[np.int64]

    def __len__(self) -> int:
        return self.stop - self.start


class CellReader:
    """Reads cells as a model sees them.

    Ranks need no normalisation: values may be counts or normalised, logged or not. Of several genes with one name the
    one expressed most in a cell counts.

    Parameters
    ----------
    adata
        In memory or backed by its file; not changed.
    vocabulary
        Genes the model knows; None takes those of ``adata``.
    layer, use_raw, gene_column
        Where expression and symbols are, see ``cells.expression_matrix``.
    n_genes
        Most genes a cell.

    Attributes
    ----------
    vocabulary
        Genes that ids stand for.
    report
        What was assumed, in sentences.

    Raises
    ------
    CellDataError
        If there is no such matrix, or no gene is one of the vocabulary.
    """

    def __init__(
        self,
        adata: ad.AnnData,
        vocabulary: GeneVocabulary | None = None,
        *,
        layer: str | None = None,
        use_raw: bool | None = None,
        gene_column: str | None = None,
        n_genes: int | None = None,
    ):
        self.report: list[str] = []
        if n_genes is not None and n_genes < 1:
            raise ValueError(f"n_genes={n_genes} must be at least 1")
        self._adata, self._n_genes = adata, n_genes
        self._name, self._held, var = select_source(adata, layer, use_raw, argument=LAYER)
        names = [name.upper() for name in gene_symbols(var, gene_column, self.report)]
        self.vocabulary = vocabulary or GeneVocabulary(list(dict.fromkeys(names)))
        ids = np.array([self.vocabulary.index.get(name, -1) for name in names], np.int64)
        self._columns = np.flatnonzero(ids >= 0)
        if not len(self._columns):
            raise CellDataError(
                f"none of the {len(names)} genes of adata.{self._name} is one of the model's {len(self.vocabulary)}: "
                f"adata has {shown(names, 3)}; the model {shown(self.vocabulary.names, 3)}. Is it another organism, "
                "or are symbols in another column (gene_column=…)?"
            )
        self._ids = ids[self._columns].astype(np.int32)
        self._names = [names[i] for i in self._columns]
        self._repeated = len(set(self._names)) < len(self._names)
        self._var_names = [str(name) for name in var.index]
        if vocabulary is not None:
            self.report.append(
                f"{len(set(self._names))} of {len(set(names))} genes of adata.{self._name} are among the model's "
                f"{len(vocabulary)}"
            )
        if self._repeated:
            self.report.append("of genes with the same name, the one expressed most in a cell counts")

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    def blocks(self, size: int = BLOCK_CELLS) -> Iterator[Block]:
        """All cells in order, ``size`` at once.

        Raises
        ------
        CellDataError
            If values are NaN, infinite or negative; names the cell and gene, and what could be used instead.
        """
        for start in range(0, self._adata.n_obs, size):
            yield self.read(start, min(start + size, self._adata.n_obs))

    def read(self, start: int, stop: int) -> Block:
        """Some cells in a row."""
        return Block(start, stop, *self._ranked(slice(start, stop), start))

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Genes of some cells as a ragged array, in the order of ``rows``, each of which is there once."""
        order = np.argsort(rows)  # files are read forwards
        genes, indptr = self._ranked(rows[order], int(rows.min(initial=0)))
        return take_rows(genes, indptr, np.argsort(order))

    def _ranked(self, rows: slice | NDArray[np.int64], first: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        cells = np.asarray(self._adata.obs_names[rows], dtype=str)
        matrix = as_csr(self._held[rows], self._name)
        if found := bad_values(matrix, cells.tolist(), self._var_names, first):
            raise CellDataError(
                f"adata.{self._name} {found}. Cell sentences need counts or normalised expression, not scaled: "
                + alternatives(self._adata, self._name, LAYER)
            )
        matrix = matrix[:, self._columns]
        matrix.sort_indices()
        ranked = rank_cells(matrix, cells, self._names, top_k=None if self._repeated else self._n_genes)
        genes = self._ids[ranked.genes]
        return self._once(ranked, genes) if self._repeated else (genes, ranked.indptr)

    def _once(self, ranked: Ranked, genes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Without repetitions of a gene in a cell; the first and highest stays."""
        cell = row_numbers(np.diff(ranked.indptr))
        _, first = np.unique(cell * len(self.vocabulary) + genes, return_index=True)
        first.sort()
        lengths = np.bincount(cell[first], minlength=len(ranked))
        kept = Ranked(offsets(lengths), genes[first], ranked.values[first])
        kept = kept.top(self._n_genes) if self._n_genes else kept
        return kept.genes, kept.indptr
