"""What the workers have found out about each data set, and which of its cells and genes stay."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.errors import CellDataError
from c2s_jax.cells.expression import kept_rows
from c2s_jax.cells.genes import GeneColumns
from c2s_jax.cells.statistics import CellStatistics, Selection, merge_statistics, select
from c2s_jax.data import corpus_format as fmt
from data_pipeline.blocks import naming, statistics_of
from data_pipeline.jobs import Job, Unit, unit_of_dataset
from data_pipeline.records import Codes
from data_pipeline.sources import Source


@dataclass(frozen=True)
class Measured:
    """Statistics of all cells of a data set, see `steps`."""

    statistics: CellStatistics
    copy_keys: NDArray[np.uint64]
    split_hashes: NDArray[np.uint64]


@dataclass
class Dataset:
    """One data set while the plan is made.

    Attributes
    ----------
    job : Job
    number : int
    units : list of Unit
    kept : bool [C]
        Cells that go into the corpus.
    genes : bool [G]
        Genes that do.
    report : list of str
        What was chosen, repaired and left out.
    """

    job: Job
    number: int
    units: list[Unit]
    kept: NDArray[np.bool_]
    genes: NDArray[np.bool_]
    report: list[str]

    @property
    def source(self) -> Source:
        return self.job.sources[self.number]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the step ``describe`` reported."""
        return self.job.staging.report(self._described)

    @property
    def _described(self) -> str:
        return unit_of_dataset(self.number).step("describe")

    def _array(self, name: str) -> NDArray | None:
        with np.load(self.job.staging.arrays_path(self._described), allow_pickle=False) as data:
            return data.get(name)

    @cached_property
    def columns(self) -> GeneColumns:
        """What its genes are called, also those left out."""
        names = self._array("names")
        assert names is not None
        return GeneColumns(tuple(names.tolist()), self._array("place"))

    @property
    def coordinates(self) -> NDArray[np.float32]:
        """Positions of all cells, float32 [C, D]; there are some if the source has a ``spatial_key``."""
        found = self._array("coordinates")
        assert found is not None
        return found

    @property
    def sections(self) -> Codes | None:
        """Section in space of all cells; None if the source names no column of them."""
        return None if self.source.section is None else self.field("section")

    def field(self, name: str) -> Codes:
        """A text field of all cells, "" where there is no value."""
        codes, values = self._array(f"{name}.codes"), self._array(f"{name}.values")
        if codes is None or values is None:
            return Codes(np.zeros(len(self.kept), np.uint8), np.array([""]))
        return Codes(codes, values)

    def fields(self) -> dict[str, Codes]:
        """All text fields."""
        return {name: self.field(name) for name in fmt.FIELDS}

    def measured(self) -> Measured:
        """What the steps ``measure`` found."""
        return measured(self.job, self.units)

    def cell_name(self, row: int) -> str:
        """A cell's id and data set, for messages; opens the file."""
        with self.source.open(self.job.staging.scratch) as table:
            return f"{str(table.obs.index[row])!r} of {self.source.name}"

    def selection(self, found: Measured) -> Selection:
        """Cells and genes that pass quality control."""
        return select(found.statistics, min_genes=self.source.min_genes, min_cells=self.source.min_cells)


def measured(job: Job, units: list[Unit]) -> Measured:
    """Statistics of a data set from those of its units."""
    parts = [job.staging.arrays(unit.step("measure")) for unit in units]
    return Measured(
        merge_statistics([statistics_of(part) for part in parts]),
        np.concatenate([part["copy_keys"] for part in parts]),
        np.concatenate([part["split_hashes"] for part in parts]),
    )


def survey(job: Job, number: int, units: list[Unit], found: Measured) -> Dataset:
    """Decide which cells and genes of a data set stay, copies of other cells aside.

    Raises
    ------
    CellDataError
        If nothing is left, or cells express nothing and that is an error (``empty_cells``).
    """
    source = job.sources[number]
    n_cells, n_genes = len(found.copy_keys), len(found.statistics.gene_cells)
    dataset = Dataset(job, number, units, np.ones(n_cells, bool), np.ones(n_genes, bool), [])
    dataset.report += dataset.facts["report"]
    with naming(source):
        if not found.statistics.gene_cells.any() and not source.min_genes:
            raise CellDataError(f"adata.{dataset.facts['matrix']} holds no expressed gene in any cell")
        selection = dataset.selection(found)
        rows = np.flatnonzero(selection.cells)
        dataset.report += _left_out(source, selection)
        full = kept_rows(
            selection.n_genes[rows],
            lambda i: f"row {rows[i]}",
            dataset.facts["matrix"],
            source.expression.get("empty_cells", "error"),
            dataset.report,
        )
    dataset.kept = np.zeros(n_cells, bool)
    dataset.kept[rows[full]] = True
    dataset.genes = selection.genes
    return dataset


def _left_out(source: Source, selection: Selection) -> list[str]:
    cells, genes = int((~selection.cells).sum()), int((~selection.genes).sum())
    said = [f"{cells} of {len(selection.cells)} cells have fewer than {source.min_genes} genes and are left out"]
    said += [f"{genes} of {len(selection.genes)} genes are in fewer than {source.min_cells} cells and are left out"]
    return [text for text, n in zip(said, (cells, genes), strict=True) if n]
