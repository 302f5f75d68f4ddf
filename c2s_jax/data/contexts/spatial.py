"""Cells in space: neighbours, cells that are none, and cells of the same niche."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.contexts.base import Chosen, Context
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.contexts.pools import Pools, draw
from c2s_jax.data.permute import below, uniform
from c2s_jax.data.ragged import offsets, places, row_numbers, row_sums, take_rows
from c2s_jax.data.settings import Choice, MixtureTask
from c2s_jax.data.texts import Texts

ANSWERS = ("No", "Yes")


class Neighbourhood(Context):
    """A cell and cells within its data set's radius: all of them, or as many as are wanted."""

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        none = np.zeros(len(known.cells) + 1, np.int64), np.zeros(0, np.int32)
        self.indptr, self.indices = known.cells.neighbours or none
        self.degree = np.diff(self.indptr)
        self.lacks = (
            "no cell has neighbours in space; give data sets with coordinates a radius when building the corpus "
            "(spatial: key and radius of a data set)"
        )

    def usable(self) -> NDArray[np.bool_]:
        return self.known.single & (self.degree >= max(1, self.settings.min_cells - 1))

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        counts = np.minimum(self.settings.n_cells(key) - 1, self.degree[unit])
        return Chosen.of(unit, self.neighbours(unit, counts, key), counts)

    def neighbours(self, unit: NDArray[np.int64], counts: NDArray, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``counts`` different neighbours of each cell."""
        drawn = draw(self.degree[unit], counts, key)
        return self.indices[np.repeat(self.indptr[unit], counts) + drawn].astype(np.int64)


class Neighbour(Neighbourhood):
    """A cell and one of its neighbours."""

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        once = np.ones(len(unit), np.int64)
        return Chosen.of(unit, self.neighbours(unit, once, key), once)


class SameNeighbourhood(Neighbourhood):
    """A cell with neighbours, or as often with as many cells of its sample that are none of its neighbours."""

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        self.pools = Pools(known.samples)
        self.strangers = self.pools.sizes() - 1 - self.degree
        self.lacks += ", small enough that some cells of a sample lie outside"

    def usable(self) -> NDArray[np.bool_]:
        return super().usable() & (self.strangers >= max(1, self.settings.min_cells - 1))

    def has(self, field: str) -> NDArray[np.bool_]:
        return np.ones(len(self.degree), bool) if field == "answer" else super().has(field)

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        yes = uniform(key, Choice.ANSWER) < 0.5
        most = np.minimum(self.degree[unit], self.strangers[unit])
        counts = np.minimum(self.settings.n_cells(key) - 1, most)
        others = np.empty(counts.sum(), np.int64)
        each = np.repeat(yes, counts)
        others[each] = self.neighbours(unit[yes], counts[yes], key[yes])
        others[~each] = self._outside(unit[~yes], counts[~yes], key[~yes])
        return Chosen.of(unit, others, counts, answer=Texts(yes.astype(np.int64), ANSWERS.__getitem__))

    def _outside(self, unit: NDArray[np.int64], counts: NDArray, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``counts`` different cells of each cell's sample that are not near it."""
        tried = counts + self.degree[unit]  # so many hold enough, should all neighbours be among them
        drawn, example = self.pools.others(unit, tried, key), row_numbers(tried)
        near, bounds = take_rows(self.indices, self.indptr, unit)
        n = len(self.degree)
        known = row_numbers(np.diff(bounds)) * n + near
        outside = ~np.isin(example * n + drawn, known)
        left = row_sums(outside, offsets(tried))
        drawn, example = drawn[outside], example[outside]
        return drawn[places(left) < counts[example]]


class SameNiche(Context):
    """Two cells of a sample: of one niche, or as often of two."""

    lacks = "no sample has cells of several niches; map an obs column to niche when building the corpus"

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        codes, values = known.cells.field_codes("niche")
        inside = np.flatnonzero(known.has("niche") & known.single)
        labels, niche = np.unique(known.samples[inside] * len(values) + codes[inside], return_inverse=True)
        pool = np.full(len(known.cells), -1, np.int64)
        pool[inside] = niche
        self.pools = Pools(pool)  # ordered by sample, then niche
        sample = labels // max(len(values), 1)
        first = np.searchsorted(sample, sample, side="left")
        end = np.searchsorted(sample, sample, side="right")
        self.start, self.end = self.pools.starts[first], self.pools.starts[end]  # of each niche's sample

    def usable(self) -> NDArray[np.bool_]:
        own = self.pools.sizes()
        out = own >= 2
        pool = self.pools.pool[out]
        out[out] = self.end[pool] - self.start[pool] > own[out]
        return out

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        once = np.ones(len(unit), np.int64)
        pool, own = self.pools.pool[unit], self.pools.sizes(unit)
        yes = uniform(key, Choice.ANSWER) < 0.5
        same = self.pools.others(unit, once, key)
        place = self.start[pool] + below(self.end[pool] - self.start[pool] - own, key, Choice.OTHERS)
        other = self.pools.order[place + own * (place >= self.pools.starts[pool])]
        answer = Texts(yes.astype(np.int64), ANSWERS.__getitem__)
        return Chosen.of(unit, np.where(yes, same, other), once, answer=answer)

    def has(self, field: str) -> NDArray[np.bool_]:
        return np.ones(len(self.known.cells), bool) if field == "answer" else super().has(field)
