"""Cells by the pool they belong to, so that others can be drawn beside one."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.permute import keys, permuted
from c2s_jax.data.ragged import offsets, places
from c2s_jax.data.settings import Choice


class Pools:
    """Pools of cells; drawing from them is without replacement and depends on the example's key alone.

    Parameters
    ----------
    pool
        Pool of each cell, int [C]; negative for cells in none.
    """

    def __init__(self, pool: NDArray):
        inside = np.flatnonzero(pool >= 0)
        self.pool = pool
        self.order = inside[np.argsort(pool[inside], kind="stable")]
        self.starts = offsets(np.bincount(pool[inside]))
        self._place = np.full(len(pool), -1, np.int64)
        self._place[self.order] = np.arange(len(self.order))

    def sizes(self, cells: NDArray | None = None) -> NDArray[np.int64]:
        """How many cells the pool of each of ``cells`` (of every cell, if None) has; 0 where it is in none."""
        pool = self.pool if cells is None else self.pool[cells]
        return np.where(pool >= 0, np.append(np.diff(self.starts), 0)[pool], 0)

    def others(self, cells: NDArray, counts: NDArray, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``counts`` different cells of each cell's pool beside itself, one cell's after the other's."""
        start = self.starts[self.pool[cells]]
        own, rest = self._place[cells] - start, self.sizes(cells) - 1
        drawn = draw(rest, counts, key)
        drawn += drawn >= np.repeat(own, counts)
        return self.order[np.repeat(start, counts) + drawn]

    def members(self, pools: NDArray, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """One cell of each pool."""
        drawn = draw(np.diff(self.starts)[pools], np.ones(len(pools), np.int64), key)
        return self.order[self.starts[pools] + drawn]


def draw(sizes: NDArray, counts: NDArray, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """``counts`` different numbers below each of ``sizes``, one example's after the other's."""
    each = np.repeat(keys(key, Choice.OTHERS), counts)
    return permuted(places(counts), np.repeat(sizes, counts), each)
