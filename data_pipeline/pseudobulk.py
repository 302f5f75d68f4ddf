"""Data sets of summed counts: a row for each group of cells in each split.

Sums are made split by split, so that no row holds counts of held-out cells, and every split has the sums of its own
cells. They are written to the staging folder and from there on are a data set like any other, except that the splits of
its rows are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells.errors import CellDataError
from c2s_jax.cells.statistics import CellStatistics
from c2s_jax.data import corpus_format as fmt
from data_pipeline import writer
from data_pipeline.arrangement import Arrangement
from data_pipeline.blocks import OpenDataset, block_bounds, naming
from data_pipeline.datasets import Dataset, measured, survey
from data_pipeline.jobs import Job, Unit
from data_pipeline.sources import Source
from data_pipeline.staging import Staging


@dataclass(frozen=True)
class Groups:
    """Groups of cells whose counts are summed.

    Attributes
    ----------
    of_cell : int64 [C]
        Group of each cell of the data set; −1 for cells that belong to none.
    fields : DataFrame
        A row a group: text of every field in which the cells of each group agree, "" for the others.
    splits : int8 [R]
    """

    of_cell: NDArray[np.int64]
    fields: pd.DataFrame
    splits: NDArray[np.int8]


def with_sums(job: Job) -> Job:
    """The job with, after its sources, those of the sums that are asked for."""
    parents = [number for number, source in enumerate(job.sources) if source.pseudobulk]
    sums = tuple(_source_of_sums(job.sources[number], _path(job.staging, number)) for number in parents)
    return replace(job, sources=job.sources + sums, sums_of={len(job.sources) + i: n for i, n in enumerate(parents)})


def _path(staging: Staging, parent: int) -> Path:
    return staging.work / f"sums-{parent:05d}.h5ad"


def _source_of_sums(source: Source, path: Path) -> Source:
    columns = {name: name for name in fmt.FIELDS}
    expression = {"scale": "counts", "target_sum": source.expression.get("target_sum"), "empty_cells": "drop"}
    return Source(path, source.names[1], obs_columns=columns, expression=expression)


def plan_sums(job: Job, arrangement: Arrangement) -> list[Unit]:
    """Say to the workers which cells to sum; return the units for the step ``sum``."""
    units = []
    for parent in job.sums_of.values():
        dataset = arrangement.datasets[parent]
        with naming(dataset.source):
            check_counts(measured(job, dataset.units).statistics)
            groups = find_groups(dataset, arrangement.splits[parent])
        for unit in dataset.units:
            job.staging.save_arrays(unit.step("groups"), {"groups": groups.of_cell[unit.start : unit.stop]})
        units += dataset.units
    return units


def check_counts(statistics: CellStatistics) -> None:
    """Raise `CellDataError` for values that are no counts."""
    if not statistics.whole:
        raise CellDataError("its values are no whole numbers: pseudobulk is the sum of raw counts")


def find_groups(dataset: Dataset, splits: NDArray[np.int8]) -> Groups:
    """Groups of cells of one split that agree in the fields asked for; cells without a value belong to none."""
    by = dataset.source.pseudobulk
    fields = dataset.fields()
    key, member = splits.astype(np.int64), splits >= 0
    for name in by:
        codes, values = fields[name].codes, fields[name].values
        member &= (values != "")[codes]
        key = np.unique(key * len(values) + codes, return_inverse=True)[1]
    rows = np.flatnonzero(member)
    if not len(rows):
        raise CellDataError(f"no cell has a value of {', '.join(by)}, by which pseudobulk is asked for")
    _, first, group = np.unique(key[rows], return_index=True, return_inverse=True)
    of_cell = np.full(len(splits), -1, np.int64)
    of_cell[rows] = group
    texts = {}
    for name, column in fields.items():
        codes = column.codes[rows]
        agree = bool((codes == codes[first][group]).all())
        texts[name] = column.values[codes[first]] if agree else np.full(len(first), "")
    return Groups(of_cell, pd.DataFrame(texts, dtype=object), splits[rows[first]])


def sum_unit(job: Job, unit: Unit, dataset: OpenDataset, advance: Callable[[int], None]) -> None:
    """The step ``sum``: counts of the unit's groups, added up."""
    groups = job.staging.arrays(unit.step("groups"))["groups"]
    there, local = np.unique(groups, return_inverse=True)
    total = sparse.csr_matrix((len(there), len(dataset.columns.names)), dtype=np.int64)
    for start, stop in block_bounds(unit.start, unit.stop):
        counts = dataset.columns.merged(dataset.rows(start, stop).astype(np.int64))
        mine = local[start - unit.start : stop - unit.start]
        entries = (np.ones(len(mine), np.int64), (mine, np.arange(len(mine))))
        total = total + sparse.csr_matrix(entries, (len(there), len(mine))) @ counts
        advance(stop - start)
    arrays = {"groups": there, "data": total.data, "indices": total.indices, "indptr": total.indptr}
    step = unit.step("sum")
    job.staging.finish(step, job.staging.save_arrays(step, arrays), {})


def gather_sums(job: Job, arrangement: Arrangement) -> None:
    """Write the data sets of sums."""
    for parent in job.sums_of.values():
        dataset = arrangement.datasets[parent]
        groups = find_groups(dataset, arrangement.splits[parent])
        shape = (len(groups.splits), len(dataset.columns.names))
        total = sparse.csr_matrix(shape, dtype=np.int64)
        for unit in dataset.units:
            total = total + _part(job.staging.arrays(unit.step("sum")), shape)
        names = groups.fields[list(dataset.source.pseudobulk)].agg("_".join, axis=1)
        obs = groups.fields.set_index(names + np.array([f"_{name}" for name in fmt.SPLITS])[groups.splits])
        obs.index = ad.utils.make_index_unique(pd.Index(obs.index, dtype=object))
        var = pd.DataFrame(index=np.array(dataset.columns.names, dtype=object)[dataset.genes])
        sums = ad.AnnData(total[:, dataset.genes], obs=obs, var=var)
        writer.write_file(_path(job.staging, parent), job.staging.output, sums.write_h5ad)


def _part(arrays: dict[str, NDArray], shape: tuple[int, int]) -> sparse.csr_matrix:
    """The sums of a unit, in rows for all groups."""
    kept = arrays["groups"] >= 0
    part = sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), (len(kept), shape[1]))[kept]
    lengths = np.zeros(shape[0], np.int64)
    lengths[arrays["groups"][kept]] = np.diff(part.indptr)
    return sparse.csr_matrix((part.data, part.indices, np.concatenate([[0], np.cumsum(lengths)])), shape)


def arrange_sums(job: Job, arrangement: Arrangement, units: Sequence[list[Unit]]) -> Arrangement:
    """The arrangement with the data sets of sums, whose units are given; each row is in the split of its cells."""
    datasets, splits = [], []
    for (number, parent), its_units in zip(job.sums_of.items(), units, strict=True):
        dataset = survey(job, number, its_units, measured(job, its_units))
        given = find_groups(arrangement.datasets[parent], arrangement.splits[parent]).splits
        datasets.append(dataset)
        splits.append(np.where(dataset.kept, given, np.int8(-1)))
    return Arrangement(arrangement.datasets + datasets, arrangement.splits + splits, arrangement.report)
