"""The order of a cell's genes, and other sentences of the same cell: ties re-drawn, genes dropped, values jittered."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from c2s_jax.data.cell_source import CellBlock, CellSource
from c2s_jax.data.permute import keys, permuted, uniform
from c2s_jax.data.ragged import offsets, positions, row_numbers
from c2s_jax.data.settings import Choice, GeneOrder

BIN_WIDTH = np.float32(np.log10(2))  # genes in one bin agree within a factor of two
_RUN_BITS = 24
IDF_CELLS = 10_000


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training sentences vary; all off by default.

    Attributes
    ----------
    shuffle_ties
        Draw the order of equally expressed genes anew for each example.
    gene_dropout
        Largest share of a cell's genes left out; each sentence draws its share uniformly below it.
    jitter
        Standard deviation of Gaussian noise added to log10 expression before ranking.
    """

    shuffle_ties: bool = False
    gene_dropout: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.gene_dropout < 1.0 or self.jitter < 0.0:
            raise ValueError(f"gene_dropout must be in [0, 1) and jitter >= 0, got {self}")

    def genes_left(self, n_genes: NDArray, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Genes that dropout leaves of the lists with these keys; one at least."""
        lost = (self.gene_dropout * uniform(key, Choice.DROPOUT) * n_genes).astype(np.int64)
        return np.asarray(n_genes, np.int64) - lost


def sentences(
    block: CellBlock,
    most: NDArray[np.int64],
    key: NDArray[np.uint64],
    augmentation: Augmentation,
    order: GeneOrder = "expression",
    idf: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Sentences of cells: genes in order, cut.

    Parameters
    ----------
    block
        Genes by falling expression, of C cells.
    most
        Genes to keep, int64 [C].
    key
        Of each sentence, uint64 [C]; all chance hangs on it and on the gene.
    augmentation
        How sentences vary.
    order
        See ``MixtureTask.gene_order``.
    idf
        Weight of each gene, float32 [G], for ``order="tfidf"``.

    Returns
    -------
    Genes and ``indptr``.
    """
    genes, value, row = block.genes, block.expression, row_numbers(np.diff(block.indptr))
    left = augmentation.genes_left(np.diff(block.indptr), key)
    if augmentation.gene_dropout:
        kept = _kept(genes, row, block.indptr, left, key)
        genes, value, row = genes[kept], value[kept], row[kept]
        left = np.bincount(row, minlength=len(left))  # equal chances at the last place are one in many billions
    most, starts = np.minimum(most, left), offsets(left)
    if augmentation.jitter or order == "tfidf":
        ranked = _scored(genes, value.astype(np.float32), row, key, augmentation, order, idf)
    elif augmentation.shuffle_ties or order == "binned":
        level = np.floor(value.astype(np.float32) / BIN_WIDTH) if order == "binned" else value.view(np.uint16)
        return _within_runs(genes, level, row, starts, most, key)
    else:
        ranked = None
    first = positions(starts[:-1], most)
    return genes[first if ranked is None else ranked[first]], offsets(most)


def _kept(genes: NDArray, row: NDArray, indptr: NDArray, left: NDArray, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Entries that dropout leaves, in order: as many of each row as it shall have, any of them alike."""
    chance = row + uniform(keys(key, Choice.DROPPED)[row], genes)
    last = np.sort(chance)[indptr[:-1] + left - 1]  # the luckiest of each row stay
    return np.flatnonzero(chance <= last[row])


def _within_runs(
    genes: NDArray, level: NDArray, row: NDArray, starts: NDArray, most: NDArray, key: NDArray[np.uint64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The first genes of every row, in random order among neighbours of the same level."""
    begins = np.ones(len(genes), bool)
    np.not_equal(level[1:], level[:-1], out=begins[1:])
    begins[starts[:-1][starts[:-1] < len(genes)]] = True
    run = np.cumsum(begins)
    first = np.flatnonzero(begins)[run - 1] - starts[row]  # place of the run's first gene in its row
    near = np.flatnonzero(first < most[row])  # later runs are cut off anyhow
    genes, run, row = genes[near], run[near], row[near]
    chance = keys(keys(key, Choice.TIES)[row], genes) >> np.uint64(64 - _RUN_BITS)
    order = np.argsort((run.astype(np.uint64) << np.uint64(_RUN_BITS)) | chance)
    ends = offsets(np.bincount(row, minlength=len(most)))
    return genes[order][positions(ends[:-1], most)], offsets(most)


def _scored(
    genes: NDArray,
    value: NDArray[np.float32],
    row: NDArray,
    key: NDArray[np.uint64],
    augmentation: Augmentation,
    order: GeneOrder,
    idf: NDArray[np.float32] | None,
) -> NDArray[np.int64]:
    """Entries of every row by falling score."""
    if augmentation.jitter:
        noise = ndtri(uniform(keys(key, Choice.JITTER)[row], genes) + 2.0**-54)
        value = value + np.float32(augmentation.jitter) * noise.astype(np.float32)
    if order == "tfidf":
        assert idf is not None
        value = value * idf[genes]
    if order == "binned":
        value = np.floor(value / BIN_WIDTH)
    if augmentation.shuffle_ties or order == "binned":
        tie = keys(keys(key, Choice.TIES)[row], genes)
        return np.lexsort((tie, -value, row))
    return np.lexsort((-value, row))  # stable


def inverse_document_frequency(cells: CellSource, n_genes: int) -> NDArray[np.float32]:
    """Weight of each gene by how many cells express it: log((1 + N) / (1 + n)) + 1, as scikit-learn smooths it.

    Parameters
    ----------
    cells
        Training cells, of which at most 10,000 are read.
    n_genes
        Size of the vocabulary.
    """
    sample = permuted(np.arange(min(len(cells), IDF_CELLS)), len(cells), key=0)
    expressed = np.bincount(cells.take(sample).genes, minlength=n_genes)
    return (np.log((1 + len(sample)) / (1 + expressed)) + 1).astype(np.float32)
