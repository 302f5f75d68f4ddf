"""Several cells of one sample: the same donor, tissue and data set."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.contexts.base import Chosen, Context
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.contexts.pools import Pools
from c2s_jax.data.settings import MixtureTask
from c2s_jax.data.texts import Texts
from c2s_jax.tasks import TASKS


class Sample(Context):
    """A cell and others of its sample; where their types are asked for, only cells that have one."""

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        self._typed = "cell_types" in TASKS[settings.task].fields
        self.pools = Pools(np.where(known.has("cell_type"), known.samples, -1) if self._typed else known.samples)
        self.lacks = (
            f"no sample (cells of one data set, donor and tissue) has {settings.min_cells} cells"
            f"{' with a cell type' if self._typed else ''}; lower min_cells, or map donor and tissue when building the "
            "corpus"
        )

    def usable(self) -> NDArray[np.bool_]:
        return self.pools.sizes() >= self.settings.min_cells

    def has(self, field: str) -> NDArray[np.bool_]:
        return self.known.has("cell_type" if field == "cell_types" and self._typed else field)

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        counts = np.minimum(self.settings.n_cells(key), self.pools.sizes(unit)) - 1
        chosen = Chosen.of(unit, self.pools.others(unit, counts, key), counts)
        if not self._typed:
            return chosen
        types = self.known.texts("cell_type", chosen.lists, key[:0])
        return dataclasses.replace(chosen, texts={"cell_types": Texts(types.codes, types.value, chosen.indptr)})
