"""What is known of the cells of a split: fields, data sets, abstracts, samples."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.corpus import Corpus
from c2s_jax.data.corpus_format import FIELDS
from c2s_jax.data.permute import below
from c2s_jax.data.ragged import offsets
from c2s_jax.data.settings import Choice
from c2s_jax.data.texts import Texts


class Known:
    """Columns of a split that contexts look up, each made once.

    Parameters
    ----------
    corpus
        Where from.
    split
        Which cells.
    """

    def __init__(self, corpus: Corpus, split: str):
        self.corpus, self.split, self.cells = corpus, split, corpus.cells(split)

    @cached_property
    def bulk_of(self) -> NDArray[np.int64]:
        """The data set whose cells each data set sums up, int64 [D]; -1 where it holds cells itself."""
        number = {d["name"]: i for i, d in enumerate(self.corpus.datasets)}
        parents = [d.get("provenance", {}).get("sums_of") for d in self.corpus.datasets]
        return np.array([-1 if parent is None else number[parent] for parent in parents])

    @cached_property
    def single(self) -> NDArray[np.bool_]:
        """Which records are cells or samples measured as such, not sums of others, bool [C]."""
        return self.bulk_of[self.cells.dataset_ids] < 0

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """Donor × tissue × data set of each cell, int64 [C]; -1 for pseudobulk."""
        return np.where(self.single, self.cells.groups, -1)

    def has(self, field: str) -> NDArray[np.bool_]:
        """Which cells have a text for a field, bool [C]."""
        if field == "abstract":
            return (np.diff(self._abstracts[1]) > 0)[self.cells.dataset_ids]
        if field not in FIELDS:
            return np.zeros(len(self.cells), bool)
        codes, values = self.cells.field_codes(field)
        return (np.char.strip(values) != "")[codes]

    def texts(self, field: str, cells: NDArray, key: NDArray[np.uint64]) -> Texts:
        """The text of a field for some cells; of several abstracts of a data set, one."""
        if field == "abstract":
            texts, bounds = self._abstracts
            dataset = self.cells.dataset_ids[cells]
            n = np.diff(bounds)[dataset]
            codes = np.where(n > 0, bounds[dataset] + below(n, key, Choice.TEXT), 0)  # cells without any ask for none
            return Texts(codes, texts.__getitem__)
        codes, values = self.cells.field_codes(field)
        return Texts(codes[cells], lambda code: str(values[code]))

    @cached_property
    def _abstracts(self) -> tuple[list[str], NDArray[np.int64]]:
        lists = [[text for text in d.get("abstracts", ()) if text.strip()] for d in self.corpus.datasets]
        return [text for texts in lists for text in texts], offsets(np.array([len(texts) for texts in lists], np.int64))
