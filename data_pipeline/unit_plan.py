"""What the plan says about one unit: which cells go where, and how they are converted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.conversion import Conversion
from c2s_jax.cells.genes import GeneColumns
from data_pipeline.blocks import conversion_facts, conversion_of
from data_pipeline.jobs import Unit
from data_pipeline.staging import Staging


@dataclass(frozen=True)
class DatasetPlan:
    """What holds for all units of a data set.

    Attributes
    ----------
    conversion : Conversion
    gene_ids : int32 [G]
        Corpus id of each gene; −1 for those that are left out.
    """

    conversion: Conversion
    gene_ids: NDArray[np.int32]

    def save(self, staging: Staging, dataset: int) -> None:
        """Keep it for the workers."""
        files = staging.save_arrays(_step(dataset), {"gene_ids": self.gene_ids})
        staging.finish(_step(dataset), files, conversion_facts(self.conversion))

    @classmethod
    def load(cls, staging: Staging, dataset: int, columns: GeneColumns) -> "DatasetPlan":
        """What `save` kept; `columns` are those of the data set."""
        facts = staging.report(_step(dataset))
        return cls(conversion_of(facts, columns), staging.arrays(_step(dataset))["gene_ids"])


def _step(dataset: int) -> str:
    return f"plan-{dataset:05d}"


@dataclass(frozen=True)
class UnitPlan:
    """The K cells of a unit that go into the corpus, by row.

    Attributes
    ----------
    rows : int64 [K]
        Row of each cell in its data set, rising.
    splits : int8 [K]
    n_genes : int32 [K]
        Genes to be ranked.
    totals : float64 [K]
        Sum of the values as read.
    sampled : bool [K]
        Whether the line from rank to expression is fitted on the cell.
    shuffle : uint32 [625] or [0]
        State of the generator of "cell2sentence" ties before the first cell.
    shards : dict of int to str
        Name of the shard of each split that has cells.
    """

    rows: NDArray[np.int64]
    splits: NDArray[np.int8]
    n_genes: NDArray[np.int32]
    totals: NDArray[np.float64]
    sampled: NDArray[np.bool_]
    shuffle: NDArray[np.uint32]
    shards: Mapping[int, str]

    def within(self, start: int, stop: int) -> slice:
        """Places of the cells whose rows are in ``start:stop``."""
        first, last = np.searchsorted(self.rows, [start, stop])
        return slice(int(first), int(last))

    def save(self, staging: Staging, unit: Unit) -> None:
        """Keep it for the workers."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        step = unit.step("plan")
        shards = {str(split): name for split, name in self.shards.items()}
        staging.finish(step, staging.save_arrays(step, arrays), {"shards": shards})

    @classmethod
    def load(cls, staging: Staging, unit: Unit) -> "UnitPlan":
        """What `save` kept."""
        step = unit.step("plan")
        shards = {int(split): name for split, name in staging.report(step)["shards"].items()}
        return cls(**staging.arrays(step), shards=shards)


_ARRAYS = ("rows", "splits", "n_genes", "totals", "sampled", "shuffle")
