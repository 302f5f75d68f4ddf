"""Reading a data set block by block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells.conversion import Conversion
from c2s_jax.cells.errors import CellDataError
from c2s_jax.cells.expression import BLOCK_CELLS
from c2s_jax.cells.genes import GeneColumns, gene_columns
from c2s_jax.cells.scales import SourceScale
from c2s_jax.cells.source import bad_values
from c2s_jax.cells.statistics import CellStatistics, Entries
from data_pipeline.duplicates import gene_hashes
from data_pipeline.readers import CellTable, ReadError
from data_pipeline.sources import Source


@dataclass(frozen=True)
class OpenDataset:
    """A data set while a worker reads it.

    Attributes
    ----------
    source : Source
    table : CellTable
    columns : GeneColumns
        What its genes are called.
    report : list of str
        What was chosen and repaired.
    """

    source: Source
    table: CellTable
    columns: GeneColumns
    report: list[str]

    @classmethod
    def open(cls, source: Source, scratch: Path) -> "OpenDataset":
        """Open `source`; temporary files go into `scratch`, where other workers find them."""
        table = source.open(scratch)
        if not table.n_cells or not table.n_genes:
            raise CellDataError(f"adata.{table.matrix_name} has {table.n_cells} cells and {table.n_genes} genes")
        report = list(table.report)
        columns = gene_columns(table.symbols, source.expression.get("duplicates", "error"), report)
        return cls(source, table, columns, report)

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Values as read of some cells, checked, CSR [stop − start, G]."""
        matrix = self.table.rows(start, stop)
        found = bad_values(matrix, self.table.obs.index[start:stop], self.table.var.index, first_row=start)
        if found:
            instead = self.table.usable_instead()
            advice = f"usable instead: {instead}" if instead else "nothing else in it is usable; go back to the counts"
            raise CellDataError(
                f"adata.{self.table.matrix_name} {found}, in the block of cells {start} to {stop - 1}. Cell sentences "
                f"need counts or normalised, non-negative expression: {advice}"
            )
        return matrix

    @cached_property
    def gene_hashes(self) -> NDArray[np.uint64]:
        """Of the columns as read, for `duplicates.copy_keys`."""
        return gene_hashes(self.table.symbols)

    def close(self) -> None:
        """Close the file."""
        self.table.close()


def block_bounds(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Bounds of the blocks in which cells ``start:stop`` are read."""
    for first in range(start, stop, BLOCK_CELLS):
        yield first, min(stop, first + BLOCK_CELLS)


@contextmanager
def naming(source: Source) -> Iterator[None]:
    """Put the name of the source before what is wrong with it."""
    try:
        yield
    except ReadError:
        raise  # it has the name
    except (ValueError, KeyError) as error:
        text = str(error.args[0] if error.args else error)
        raise CellDataError(f"{source.file or source.name}: {text}") from error


def statistics_arrays(found: CellStatistics) -> dict[str, NDArray]:
    """For an ``.npz`` file; `statistics_of` takes them back."""
    return {
        "n_genes": found.n_genes,
        "totals": found.totals,
        "gene_cells": found.gene_cells,
        "rare.cells": found.rare.cells,
        "rare.genes": found.rare.genes,
        "rare.values": found.rare.values,
        "largest": np.array(found.largest),
        "whole": np.array(found.whole),
        "probe_lengths": found.probe_lengths,
        "probe_values": found.probe_values,
    }


def statistics_of(arrays: Mapping[str, NDArray]) -> CellStatistics:
    """The statistics in an ``.npz`` file."""
    return CellStatistics(
        n_genes=arrays["n_genes"],
        totals=arrays["totals"],
        gene_cells=arrays["gene_cells"],
        rare=Entries(arrays["rare.cells"], arrays["rare.genes"], arrays["rare.values"]),
        largest=float(arrays["largest"]),
        whole=bool(arrays["whole"]),
        probe_lengths=arrays["probe_lengths"],
        probe_values=arrays["probe_values"],
    )


def conversion_facts(conversion: Conversion) -> dict[str, Any]:
    """For JSON; `conversion_of` takes them back."""
    scale = conversion.scale
    return {"scale": [scale.name, scale.base, scale.why], "target_sum": conversion.target_sum}


def conversion_of(facts: Mapping[str, Any], columns: GeneColumns) -> Conversion:
    """The conversion in a JSON file."""
    return Conversion(columns, SourceScale(*facts["scale"]), facts["target_sum"])
