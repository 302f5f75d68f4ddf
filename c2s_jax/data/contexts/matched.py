"""Records that belong together by their fields: a perturbed cell and a control, cells and their pseudobulk."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.contexts.base import Chosen, Context
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.contexts.pools import Pools
from c2s_jax.data.corpus_format import FIELDS
from c2s_jax.data.permute import below
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.data.settings import Choice, MixtureTask

MATCHED = (("cell_type", "donor", "batch"), ("cell_type", "donor"), ("cell_type", "batch"), ("cell_type",))
"""Fields in which a control agrees with its perturbed cell: the first of these for which there is one."""


class Pair(Context):
    """A control and a perturbed cell of the same data set and cell type, of the same donor and batch where possible."""

    lacks = (
        "no data set has perturbed cells with controls of the same cell type; name the value of perturbation that "
        "means untreated when building the corpus (control of a data set)"
    )

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        codes, values = known.cells.field_codes("perturbation")
        names = np.array([d.get("control", "") for d in known.corpus.datasets], dtype=np.str_)
        control = names[known.cells.dataset_ids]
        treated = known.single & (control != "") & known.has("perturbation")
        is_control = treated & (values[codes] == control)
        perturbed, controls = np.flatnonzero(treated & ~is_control), np.flatnonzero(is_control)
        n = len(known.cells)
        self.start, self.size = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.controls = np.zeros(0, np.int64)
        for fields in MATCHED:
            open_ = perturbed[self.size[perturbed] == 0]
            wanted, offered = _match(known, fields, open_, controls)
            pools = Pools(offered)
            sizes = np.append(np.diff(pools.starts), 0)
            found = np.where(wanted < len(sizes) - 1, wanted, -1)
            self.size[open_] = sizes[found]
            self.start[open_] = len(self.controls) + np.append(pools.starts[:-1], 0)[found]
            self.controls = np.concatenate([self.controls, controls[pools.order]])

    def usable(self) -> NDArray[np.bool_]:
        return self.size > 0

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        control = self.controls[self.start[unit] + below(self.size[unit], key, Choice.CONTROL)]
        chosen = Chosen.of(control, unit, np.ones(len(unit), np.int64))
        return Chosen(chosen.lists, chosen.indptr, chosen.cells, unit)


class Bulk(Context):
    """Cells and the pseudobulk that they are part of, which is the last list."""

    lacks = (
        "no cell belongs to a pseudobulk of its data set; name the fields to sum counts by when building the corpus "
        "(pseudobulk of a data set)"
    )

    def __init__(self, known: Known, settings: MixtureTask):
        super().__init__(known, settings)
        datasets = known.cells.dataset_ids
        bulk = np.full(len(known.cells), -1, np.int64)
        for number in np.flatnonzero(known.bulk_of >= 0).tolist():
            sums = np.flatnonzero(datasets == number)
            cells = np.flatnonzero(datasets == known.bulk_of[number])
            fields = [field for field in FIELDS if known.has(field)[sums].any()]
            wanted, offered = _match(known, fields, cells, sums, across=True)
            record = np.full(max(wanted.max(initial=-1), offered.max(initial=-1)) + 1, -1, np.int64)
            record[offered] = sums
            bulk[cells] = record[wanted]
        self.bulk = bulk
        self.pools = Pools(bulk)

    def usable(self) -> NDArray[np.bool_]:
        return self.pools.sizes() >= max(1, self.settings.min_cells)

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        counts = np.minimum(self.settings.n_cells(key), self.pools.sizes(unit)) - 1
        shown = Chosen.of(unit, self.pools.others(unit, counts, key), counts)
        indptr = offsets(counts + 2)
        lists = np.empty(indptr[-1], np.int64)
        lists[positions(indptr[:-1], counts + 1)] = shown.lists
        lists[indptr[1:] - 1] = self.bulk[unit]
        return Chosen(lists, indptr, counts + 1, unit)


def _match(
    known: Known, fields: Sequence[str], wanting: NDArray, offered: NDArray, *, across: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers that are equal for records that agree in some fields and, unless ``across``, in their data set."""
    records = np.concatenate([wanting, offered])
    key = np.zeros(len(records), np.int64) if across else known.cells.dataset_ids[records].astype(np.int64)
    for field in fields:
        codes, values = known.cells.field_codes(field)
        _, key = np.unique(key * len(values) + codes[records], return_inverse=True)
    _, key = np.unique(key, return_inverse=True)
    return key[: len(wanting)], key[len(wanting) :]
