"""Named sets of genes."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.cell_source import CellBlock
from c2s_jax.data.contexts.base import Chosen, Context
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.corpus import GeneSet
from c2s_jax.data.ragged import offsets, take_rows
from c2s_jax.data.settings import MixtureTask
from c2s_jax.data.texts import Texts


class GeneSetSource:
    """Gene sets as lists of genes that are all equally expressed: to shuffle ties is to shuffle the set."""

    def __init__(self, sets: list[GeneSet]):
        self._indptr = offsets(np.array([len(s.genes) for s in sets], np.int64))
        self._genes = np.concatenate([np.zeros(0, np.int32), *(s.genes for s in sets)]).astype(np.int32)

    @property
    def n_genes(self) -> NDArray[np.int32]:
        """Genes of each set."""
        return np.diff(self._indptr).astype(np.int32)

    def take(self, indices: NDArray) -> CellBlock:
        """Some sets."""
        genes, indptr = take_rows(self._genes, self._indptr, indices)
        return CellBlock(indptr, genes, np.zeros(len(genes), np.float16))


class NamedSet(Context):
    """A gene set and its name. A unit is a set; sources of sets stand for data sets."""

    lacks = "the split has no gene set; give gene sets when building the corpus (--gene_sets)"

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        self.sets = [s for s in known.corpus.gene_sets if s.split == known.split]
        self.source = GeneSetSource(self.sets)

    def usable(self) -> NDArray[np.bool_]:
        return np.ones(len(self.sets), bool)

    def datasets(self) -> NDArray:
        return np.unique([s.source for s in self.sets], return_inverse=True)[1]

    def has(self, field: str) -> NDArray[np.bool_]:
        return np.full(len(self.sets), field == "gene_set_name")

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        chosen = Chosen.of(unit, unit[:0], np.zeros(len(unit), np.int64))
        name = Texts(unit, lambda number: self.sets[number].name)
        return Chosen(chosen.lists, chosen.indptr, chosen.cells, chosen.anchor, {"gene_set_name": name})
