"""Texts written about cells: captions of clusters, and questions about data sets."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.contexts.base import Chosen, Context
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.contexts.pools import Pools
from c2s_jax.data.permute import below, keys
from c2s_jax.data.ragged import offsets
from c2s_jax.data.settings import Choice, MixtureTask
from c2s_jax.data.texts import Texts


class Cluster(Context):
    """Cells of one cluster (cells of a data set that agree in its caption field) and one of its captions."""

    lacks = (
        "no cell belongs to a cluster with a caption, or its cluster has fewer than min_cells; give data sets captions "
        "when building the corpus (captions and caption_field of a data set)"
    )

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        self.captions: list[str] = []
        counts: list[int] = []
        cluster = np.full(len(known.cells), -1, np.int64)
        captioned = [(i, d) for i, d in enumerate(known.corpus.datasets) if d.get("captions")]
        for field in sorted({d["caption_field"] for _, d in captioned}):
            codes, values = known.cells.field_codes(field)
            table = np.full((len(known.corpus.datasets), len(values)), -1, np.int64)
            for dataset, entry in captioned:
                if entry["caption_field"] != field:
                    continue
                for code, value in enumerate(values.tolist()):
                    if texts := entry["captions"].get(value):
                        table[dataset, code] = len(counts)
                        self.captions += texts
                        counts.append(len(texts))
            found = table[known.cells.dataset_ids, codes]
            cluster = np.where(found >= 0, found, cluster)
        self.bounds = offsets(np.array(counts, np.int64))
        self.pools = Pools(np.where(known.single, cluster, -1))

    def usable(self) -> NDArray[np.bool_]:
        return self.pools.sizes() >= max(1, self.settings.min_cells)

    def has(self, field: str) -> NDArray[np.bool_]:
        return self.pools.pool >= 0 if field == "caption" else super().has(field)

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        counts = np.minimum(self.settings.n_cells(key), self.pools.sizes(unit)) - 1
        cluster = self.pools.pool[unit]
        code = self.bounds[cluster] + below(np.diff(self.bounds)[cluster], key, Choice.TEXT)
        caption = Texts(code, self.captions.__getitem__)
        return Chosen.of(unit, self.pools.others(unit, counts, key), counts, caption=caption)


class Asked(Context):
    """A question about a data set, its answer, and cells of one of the data set's samples. A unit is a question."""

    lacks = (
        "the split has no question about a data set with a sample of min_cells cells; give data sets questions when "
        "building the corpus (questions of a data set), or lower min_cells"
    )

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        self.questions = [q for q in known.corpus.questions if q.split == known.split]
        self.dataset = np.array([q.dataset for q in self.questions], np.int64)
        self.samples = Pools(known.samples)
        large = self.samples.sizes() >= max(1, settings.min_cells)
        anchors = np.where(large, known.cells.dataset_ids, -1)
        self.anchors = Pools(anchors)
        self._n_anchors = np.bincount(anchors[large], minlength=len(known.corpus.datasets))

    def usable(self) -> NDArray[np.bool_]:
        return self._n_anchors[self.dataset] > 0

    def datasets(self) -> NDArray:
        return self.dataset

    def has(self, field: str) -> NDArray[np.bool_]:
        if field in ("question", "answer"):
            return np.ones(len(self.questions), bool)
        pool = self.anchors.pool
        there = np.bincount(pool[(pool >= 0) & self.known.has(field)], minlength=len(self._n_anchors))
        return (there == self._n_anchors)[self.dataset]  # whichever cell is drawn has it

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        first = self.anchors.members(self.dataset[unit], keys(key, Choice.ANCHOR))
        counts = np.minimum(self.settings.n_cells(key), self.samples.sizes(first)) - 1
        return Chosen.of(
            first,
            self.samples.others(first, counts, key),
            counts,
            question=Texts(unit, lambda number: self.questions[number].question),
            answer=Texts(unit, lambda number: self.questions[number].answer),
        )
