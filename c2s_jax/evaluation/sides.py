"""Cells that stand in the place of those of some conditions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells import hash_strings
from c2s_jax.data import reconstruct
from c2s_jax.data.permute import generator, keys
from c2s_jax.evaluation.context import Context, Sentences, dense_expression, ranked, sentences_of

MIN_CELLS = 2  # of a condition that is compared


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """C cells.

    Attributes
    ----------
    expression
        log10, float32 [C, G].
    sentences
        The same cells' genes in order.
    keys
        What names each cell, uint64 [C]: where it stands on several sides, it is drawn alike on all.
    """

    expression: NDArray[np.float32]
    sentences: Sentences
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.expression)

    def select(self, rows: NDArray[np.int64]) -> "Cells":
        """Some of them."""
        return Cells(self.expression[rows], self.sentences.select(rows), self.keys[rows])

    def moved(self, shift: NDArray) -> "Cells":
        """The same with expression moved by ``shift`` [G], and sentences that follow it."""
        expression = (self.expression + shift).astype(np.float32)
        longest = int(np.diff(self.sentences.indptr).max(initial=0))
        return Cells(expression, ranked(expression, longest), self.keys)

    @staticmethod
    def stored(context: Context, split: str, rows: NDArray[np.int64]) -> "Cells":
        """Some cells of a split as they were measured."""
        source = context.corpus.cells(split)
        expression = dense_expression(source, rows, len(context.corpus.genes))
        return Cells(expression, sentences_of(source, rows, context.most_genes()), named(split, rows))

    @staticmethod
    def written(
        context: Context, sentences: Sentences, datasets: NDArray[np.integer], key: NDArray[np.uint64]
    ) -> "Cells":
        """Cells known by their sentences: expression is read off the rank→expression line of each one's data set."""
        return Cells(reconstruct(context.corpus, sentences.lists(), datasets), sentences, key)

    @staticmethod
    def together(parts: Sequence["Cells"]) -> "Cells":
        """One after the other."""
        lists = [genes for part in parts for genes in part.sentences.lists()]
        expression, key = (np.concatenate([getattr(part, of) for part in parts]) for of in ("expression", "keys"))
        return Cells(expression, Sentences.of(lists), key)


def named(origin: str, rows: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Keys of cells: a split's, or those that a model wrote."""
    return keys(hash_strings([origin], domain="cells"), rows)


Embed = Callable[[Cells], NDArray]
"""Cells as points [C, d] of a space."""


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """Cells by condition.

    Attributes
    ----------
    cells
        Those that the conditions share.
    rows
        Condition → which of them; one may stand for several conditions.
    shift
        Condition → by how much its cells are moved [G], where they are.
    """

    cells: Cells
    rows: Mapping[str, NDArray[np.int64]]
    shift: Mapping[str, NDArray] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(cells: Cells, conditions: NDArray) -> "Side":
        """A cell for each entry of ``conditions``, str [C]."""
        return Side(cells, {str(name): np.flatnonzero(conditions == name) for name in np.unique(conditions)})

    def at_most(self, sizes: Mapping[str, int], seed: int) -> "Side":
        """Those of these conditions, no more than ``sizes`` cells of each: a random choice keyed by seed and condition.

        Sides that hold the same cells of a condition keep the same ones.
        """
        rows = {name: _some(self.rows[name], n, seed, name) for name, n in sizes.items() if name in self.rows}
        used = np.unique(np.concatenate([np.empty(0, np.int64), *rows.values()]))
        rows = {name: np.searchsorted(used, of) for name, of in rows.items()}
        return Side(self.cells.select(used), rows, self.shift)

    def keys(self, condition: str) -> NDArray[np.uint64]:
        """Of the cells of a condition."""
        return self.cells.keys[self.rows[condition]]

    def expression(self, condition: str) -> NDArray[np.float32]:
        """Of the cells of a condition, [C, G]; none where it has none."""
        rows = self.rows.get(condition, np.empty(0, np.int64))
        return self.cells.expression[rows] + self.shift.get(condition, np.float32(0))

    def points(self, embed: Embed) -> dict[str, NDArray]:
        """The cells of each condition as points of a space."""
        if self.shift:
            return {
                c: embed(self.cells.select(rows).moved(self.shift[c])) for c, rows in self.rows.items() if len(rows)
            }
        points = embed(self.cells)
        return {condition: points[rows] for condition, rows in self.rows.items()}


def _some(rows: NDArray[np.int64], n: int, seed: int, condition: str) -> NDArray[np.int64]:
    if len(rows) <= n:
        return rows
    rng = generator(seed, int(hash_strings([condition], domain="equal n")[0]))
    return rows[np.sort(rng.choice(len(rows), n, replace=False))]
