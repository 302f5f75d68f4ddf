"""Which known interactions are told about an example: those whose genes its prompt shows, strongest first."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.corpus import Corpus
from c2s_jax.data.formatting import Slots
from c2s_jax.data.ragged import offsets, places, positions
from c2s_jax.data.texts import Texts
from c2s_jax.data.token_rows import GeneLists
from c2s_jax.tasks.interactions import NONE_KNOWN, interaction_sentence


class Interactions:
    """The interactions of a corpus, to be looked up by genes."""

    def __init__(self, corpus: Corpus):
        known, names = corpus.interactions, corpus.genes.names
        self._genes = np.concatenate([np.zeros(0, np.int32), *(np.concatenate([i.a, i.b]) for i in known)]).astype(int)
        self._starts = offsets(np.array([len(i.a) + len(i.b) for i in known], np.int64))[:-1]
        self._n_genes = len(names)
        self._texts = [interaction_sentence(i.kind, [names[g] for g in i.a], [names[g] for g in i.b]) for i in known]
        self._texts.append(NONE_KNOWN)

    def texts(self, slots: Slots, lists: GeneLists, kept: NDArray[np.int64], n: int, most: int) -> Texts:
        """At most ``most`` interactions for each of n examples, as the first ``kept`` genes of each list allow.

        An interaction is as strong as the gene of it that ranks last, in the sentence where that gene ranks best.
        """
        absent = np.iinfo(np.int64).max
        rank = np.full(self._n_genes, absent)
        found: list[NDArray] = []
        order = np.argsort(slots.example, kind="stable")
        order = order[slots.asked[order]]
        for own in np.split(order, np.searchsorted(slots.example[order], np.arange(1, n))):
            which = slots.list[own]
            genes = lists.genes[positions(lists.starts[which], kept[which])]
            place = places(kept[which])
            last_first = np.argsort(-place, kind="stable")  # of a gene's places, the best is written last
            rank[genes[last_first]] = place[last_first]
            worst = np.maximum.reduceat(rank[self._genes], self._starts)
            told = np.argsort(worst, kind="stable")[:most]
            told = told[worst[told] < absent]
            found.append(told if len(told) else np.array([len(self._texts) - 1]))
            rank[genes] = absent
        return Texts(np.concatenate(found), self._texts.__getitem__, offsets(np.array([len(told) for told in found])))
