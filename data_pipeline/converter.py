"""From rows of a data set to records of the corpus."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells import Ranked
from c2s_jax.cells.errors import CellDataError
from c2s_jax.cells.ranking import rank_by
from c2s_jax.data.ragged import offsets, positions
from data_pipeline import shuffled_ties
from data_pipeline.blocks import OpenDataset
from data_pipeline.jobs import Job, Unit
from data_pipeline.records import Block
from data_pipeline.unit_plan import DatasetPlan, UnitPlan


class BlockConverter:
    """Converts a unit block by block; with "cell2sentence" ties, in the order of rows."""

    def __init__(self, job: Job, unit: Unit, dataset: OpenDataset, plan: UnitPlan) -> None:
        self._dataset, self._plan, self._unit, self._options = dataset, plan, unit, job.options
        self._whole = DatasetPlan.load(job.staging, unit.dataset, dataset.columns)
        self._shuffler = shuffled_ties.generator_at(plan.shuffle) if len(plan.shuffle) else None
        obs = dataset.table.obs.iloc[plan.rows]
        self._ids = obs.index.to_numpy(dtype=object)
        self._fields = dataset.source.texts(obs)
        key = dataset.source.spatial_key
        self._places = None if key is None else dataset.table.coordinates(key)[plan.rows]

    def ranked(self, start: int, stop: int, cells: slice) -> Ranked:
        """Rank the plan's `cells`, which lie in the rows ``start:stop``.

        Returns
        -------
        Ranked
            Ids are those of the data set's genes; values are log10(1 + normalised), float32.
        """
        rows, conversion = self._plan.rows[cells] - start, self._whole.conversion
        matrix = self._dataset.table.rows(start, stop)
        merged = conversion.merged(matrix if len(rows) == stop - start else matrix[rows])
        merged = _columns(merged, self._whole.gene_ids >= 0)
        if not np.array_equal(np.diff(merged.indptr), self._plan.n_genes[cells]):
            raise CellDataError("the input changed while the corpus was built; run the same command again")
        values = conversion.log10(merged, self._plan.totals[cells])
        if self._shuffler is not None:
            order = shuffled_ties.order(merged, merged.data, self._shuffler)
            return Ranked(merged.indptr.astype(np.int64), merged.indices[order].astype(np.int32), values[order])
        log10 = sparse.csr_matrix((values, merged.indices, merged.indptr), shape=merged.shape)
        return rank_by(log10, merged.data, self._ids[cells], conversion.columns.names, seed=self._options.seed)

    def block(self, ranked: Ranked, cells: slice) -> Block:
        """Records of ranked cells."""
        stored = ranked if self._options.top_k is None else ranked.top(self._options.top_k)
        return Block(
            dataset=self._unit.dataset,
            cell_ids=self._ids[cells].tolist(),
            indptr=stored.indptr,
            genes=self._whole.gene_ids[stored.genes],
            expression=stored.values.astype(np.float16),
            fields={name: texts[cells] for name, texts in self._fields.items()},
            coordinates=None if self._places is None else self._places[cells],
        )


def take(ranked: Ranked, cells: NDArray[np.int64]) -> Ranked:
    """Some of the ranked cells."""
    lengths = np.diff(ranked.indptr)[cells]
    entries = positions(ranked.indptr[cells], lengths)
    return Ranked(offsets(lengths), ranked.genes[entries], ranked.values[entries])


def _columns(matrix: sparse.csr_matrix, keep: NDArray[np.bool_]) -> sparse.csr_matrix:
    """The matrix without the entries of other columns, whose numbers stay."""
    if keep.all():
        return matrix
    kept = keep[matrix.indices]
    indptr = offsets(kept)[matrix.indptr]
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)
