"""Which known interactions are told about an example: those whose genes its prompt shows, strongest first."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.corpus import Corpus
from c2s_jax.data.formatting import Slots
from c2s_jax.data.ragged import offsets, row_numbers
from c2s_jax.data.texts import Texts
from c2s_jax.data.token_rows import GeneLists
from c2s_jax.tasks.interactions import NONE_KNOWN, interaction_sentence


@dataclasses.dataclass(frozen=True)
class Strongest:
    """The strongest interactions of N examples with whole sentences; shorter sentences tell the first of them.

    Attributes
    ----------
    numbers
        By falling strength, int64 [N, M].
    ranks
        Of the gene of each that ranks last, int64 [N, M].
    value
        The text with a number.
    none
        Number of the text that there are none.
    """

    numbers: NDArray[np.int64]
    ranks: NDArray[np.int64]
    value: Callable[[int], str]
    none: int

    def texts(self, kept: NDArray[np.int64]) -> Texts:
        """What is told when at most ``kept`` genes of each list are written, int64 [N]."""
        told = self.ranks < kept[:, None]
        numbers = np.where(told, self.numbers, self.none)
        told[:, 0] = True
        return Texts(numbers[told], self.value, offsets(told.sum(axis=1)))

    def select(self, rows: NDArray) -> "Strongest":
        """Those of some examples."""
        return dataclasses.replace(self, numbers=self.numbers[rows], ranks=self.ranks[rows])


class Interactions:
    """The interactions of a corpus, to be looked up by genes."""

    def __init__(self, corpus: Corpus):
        known, names = corpus.interactions, corpus.genes.names
        sizes = np.array([len(i.a) + len(i.b) for i in known], np.int64)
        self._genes = np.concatenate([np.zeros(0, np.int32), *(x for i in known for x in (i.a, i.b))]).astype(np.int64)
        self._bounds = offsets(sizes)
        pairs = np.unique(np.stack([self._genes, row_numbers(sizes)]), axis=1)  # a gene may stand on both sides
        self._of_gene = np.ascontiguousarray(pairs[1])
        self._gene_bounds = offsets(np.bincount(pairs[0], minlength=len(names)))
        self._texts = [interaction_sentence(i.kind, [names[g] for g in i.a], [names[g] for g in i.b]) for i in known]
        self._texts.append(NONE_KNOWN)

    def strongest(self, slots: Slots, lists: GeneLists, n: int, most: int) -> Strongest:
        """At most ``most`` interactions for each of n examples, of the genes that its prompt shows.

        An interaction is as strong as the gene of it that ranks last, in the sentence where that gene ranks best.
        """
        from c2s_jax.data.interactions_kernel import strongest  # numba takes half a second to import

        order = np.argsort(slots.example, kind="stable")
        order = order[slots.asked[order]]
        which = slots.list[order]
        numbers, ranks = strongest(
            lists.genes,
            lists.starts[which],
            lists.lengths[which],
            offsets(np.bincount(slots.example[order], minlength=n)),
            self._genes,
            self._bounds,
            self._of_gene,
            self._gene_bounds,
            most,
        )
        return Strongest(numbers, ranks, self._texts.__getitem__, len(self._texts) - 1)
