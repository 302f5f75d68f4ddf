"""Cell sentences: writing them, and reading those a model wrote."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import anndata as ad
import numpy as np

from .expression import expression_matrix
from .ranking import Ranked, Ties
from .vocabulary import GeneVocabulary


@dataclass(frozen=True)
class RepairReport:
    """What `repair_sentence` found.

    Attributes
    ----------
    n_words
        Words of the sentence; n_words = n_valid + n_unknown.
    n_valid
        Words that are gene names, repetitions included.
    n_unknown
        Words that are not.
    n_duplicate
        Gene names that repeat an earlier one; n_valid − n_duplicate genes are left.
    unknown
        The unknown words, upper-cased, in order.
    """

    n_words: int
    n_valid: int
    n_unknown: int
    n_duplicate: int
    unknown: tuple[str, ...]


def cell_sentences(
    adata: ad.AnnData, top_k: int | None = None, ties: Ties = "hash", seed: int = 0, **expression: Any
) -> list[str]:
    """The cell sentence of each cell: its expressed genes, upper-cased, by falling expression.

    Parameters
    ----------
    adata
        See `expression_matrix`, which also takes the further keyword arguments (`layer`, `use_raw`, …).
    top_k, ties, seed
        See `rank_cells`.

    Returns
    -------
    list of str
        One sentence a cell, genes separated by one space, no period.
    """
    cells = expression_matrix(adata, **expression)
    return join_sentences(cells.rank(top_k=top_k, ties=ties, seed=seed), cells.genes)


def join_sentences(ranked: Ranked, genes: GeneVocabulary | Sequence[str]) -> list[str]:
    """Write the ranked genes of each cell as a sentence."""
    names = np.array(genes.names if isinstance(genes, GeneVocabulary) else list(genes), dtype=object)
    words = names[ranked.genes].tolist()
    ends = ranked.indptr.tolist()
    return [" ".join(words[start:stop]) for start, stop in pairwise(ends)]


def split_sentence(text: str) -> list[str]:
    """Upper-cased words of a sentence, without its trailing period."""
    return text.strip().rstrip(". \t\r\n").upper().split()


def repair_sentence(text: str, vocabulary: GeneVocabulary | Iterable[str]) -> tuple[list[str], RepairReport]:
    """Read a generated cell sentence as a ranked list of distinct genes.

    A trailing period is stripped first. Words that are no gene of the vocabulary are dropped and counted. A
    gene that occurs several times moves to the mean of its positions among the known words; equal means keep
    the order in which the genes first occur.

    Parameters
    ----------
    text
        Generated text, in any case.
    vocabulary
        The genes there are; pass a `GeneVocabulary` when repairing many sentences.

    Returns
    -------
    (genes, report)
        Upper-cased names by rank; what was wrong.
    """
    if isinstance(vocabulary, GeneVocabulary):
        known: Container[str] = vocabulary.index
    else:
        known = {str(gene).upper() for gene in vocabulary}
    words = split_sentence(text)
    valid = [word for word in words if word in known]
    unknown = tuple(word for word in words if word not in known)
    positions: dict[str, list[int]] = {}
    for position, word in enumerate(valid):
        positions.setdefault(word, []).append(position)
    genes = sorted(positions, key=lambda gene: sum(positions[gene]) / len(positions[gene]))
    return genes, RepairReport(len(words), len(valid), len(unknown), len(valid) - len(genes), unknown)
