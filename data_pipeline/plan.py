"""The plan: which cells go into which shard, made from what has been found out about all data sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.conversion import conversion
from c2s_jax.cells.neighbourhoods import radius_graph
from c2s_jax.cells.statistics import Selection
from c2s_jax.data import corpus_format as fmt
from data_pipeline import shuffled_ties
from data_pipeline.arrangement import Arrangement
from data_pipeline.blocks import naming
from data_pipeline.dataset_line import dataset_line
from data_pipeline.datasets import Dataset
from data_pipeline.jobs import Unit
from data_pipeline.lines import sample_cells
from data_pipeline.records import Codes, Columns
from data_pipeline.unit_plan import DatasetPlan, UnitPlan


@dataclass
class SplitPlan:
    """One split: its shards, and what is written beside them, data set by data set.

    Attributes
    ----------
    shards : list of (Unit, str)
        The unit that writes each shard, and its name.
    columns : Columns
    groups : list of int32 [C]
        Group of each cell.
    degrees, neighbours : lists of int64 [C] and int32 [N]
        Number of neighbours of each cell, and the neighbours' numbers in the split.
    cells : int
        Number of cells so far.
    """

    shards: list[tuple[Unit, str]] = field(default_factory=list)
    columns: Columns = field(default_factory=Columns)
    groups: list[NDArray[np.int32]] = field(default_factory=list)
    degrees: list[NDArray[np.int64]] = field(default_factory=list)
    neighbours: list[NDArray[np.int32]] = field(default_factory=list)
    cells: int = 0


@dataclass
class Plan:
    """Everything the corpus will hold, except the records.

    Attributes
    ----------
    genes : dict of str to int
        Corpus id of each gene.
    splits : list of SplitPlan
        In the order of `corpus_format.SPLITS`.
    datasets : list of dict
        Lines of ``datasets.jsonl``, without the lines from rank to expression.
    units : list of Unit
        Those that have cells.
    report : list of str
    """

    genes: dict[str, int] = field(default_factory=dict)
    splits: list[SplitPlan] = field(default_factory=lambda: [SplitPlan() for _ in fmt.SPLITS])
    datasets: list[dict[str, Any]] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    report: list[str] = field(default_factory=list)


def make_plan(arrangement: Arrangement) -> Plan:
    """Make the plan and leave each worker's part of it in the staging folder.

    Raises
    ------
    ValueError
        If a data set cannot be used; the message names it.
    """
    datasets, splits = arrangement.datasets, arrangement.splits
    plan = Plan(report=list(arrangement.report))
    shards = _shards(plan, datasets, splits)
    groups: dict[tuple, int] = {}
    for dataset, its_splits in zip(datasets, splits, strict=True):
        with naming(dataset.source):
            plan.datasets.append(_plan_dataset(plan, dataset, its_splits, shards, groups))
    return plan


def _shards(plan: Plan, datasets: Sequence[Dataset], splits: Sequence[NDArray[np.int8]]) -> dict[Unit, dict[int, str]]:
    """Name the shards, one for each unit and split that has cells: {unit: {split: name}}."""
    pairs: list[list[Unit]] = [[] for _ in fmt.SPLITS]
    for dataset, its_splits in zip(datasets, splits, strict=True):
        for unit in dataset.units:
            for split in np.unique(its_splits[unit.start : unit.stop]).tolist():
                if split >= 0:
                    pairs[split].append(unit)
    found: dict[Unit, dict[int, str]] = {}
    for number, (name, units) in enumerate(zip(fmt.SPLITS, pairs, strict=True)):
        for i, unit in enumerate(units):
            found.setdefault(unit, {})[number] = fmt.shard_name(name, i, len(units))
            plan.splits[number].shards.append((unit, found[unit][number]))
    plan.units += [unit for dataset in datasets for unit in dataset.units if unit in found]
    return found


def _plan_dataset(
    plan: Plan,
    dataset: Dataset,
    splits: NDArray[np.int8],
    shards: dict[Unit, dict[int, str]],
    groups: dict[tuple, int],
) -> dict[str, Any]:
    """Plan one data set; return its line of ``datasets.jsonl``."""
    job, source, found = dataset.job, dataset.source, dataset.measured()
    selection = dataset.selection(found)
    convert = conversion(
        found.statistics,
        selection.totals[dataset.kept],
        dataset.columns,
        scale=source.expression.get("scale", "auto"),
        log1p_base=dataset.facts["log1p_base"],
        target_sum=source.expression.get("target_sum"),
    )
    names = dataset.columns.names
    ids = [plan.genes.setdefault(n, len(plan.genes)) if k else -1 for n, k in zip(names, dataset.genes.tolist())]
    DatasetPlan(convert, np.array(ids, dtype=np.int32)).save(job.staging, dataset.number)
    _save_units(dataset, splits, selection, sample_cells(splits, found.split_hashes), shards)
    n_genes = selection.n_genes
    _plan_neighbours(plan, dataset, splits)
    _plan_columns(plan, dataset, splits, np.minimum(n_genes, job.options.top_k or n_genes), groups)
    return dataset_line(dataset, splits, convert, n_genes)


def _save_units(
    dataset: Dataset,
    splits: NDArray[np.int8],
    selection: Selection,
    sampled: NDArray[np.bool_],
    shards: dict[Unit, dict[int, str]],
) -> None:
    """Leave each unit's part of the plan to the workers."""
    n_genes, totals = selection.n_genes, selection.totals
    shuffler = shuffled_ties.start() if dataset.job.options.ties == "cell2sentence" else None
    for unit in dataset.units:
        rows = unit.start + np.flatnonzero(splits[unit.start : unit.stop] >= 0)
        state = np.zeros(0, np.uint32) if shuffler is None else shuffled_ties.state_of(shuffler)
        if shuffler is not None:
            shuffled_ties.skip(shuffler, n_genes[rows].tolist())
        arrays = (rows, splits[rows], n_genes[rows], totals[rows], sampled[rows], state)
        UnitPlan(*arrays, shards=shards.get(unit, {})).save(dataset.job.staging, unit)


def _plan_columns(
    plan: Plan, dataset: Dataset, splits: NDArray[np.int8], n_genes: NDArray[np.int32], groups: dict[tuple, int]
) -> None:
    """Append a data set's cells to the columns of the splits."""
    fields = dataset.fields()
    group = _samples(dataset, fields, groups)
    for number, split in enumerate(plan.splits):
        rows = np.flatnonzero(splits == number)
        split.columns.append(dataset.number, n_genes[rows], {name: column[rows] for name, column in fields.items()})
        split.groups.append(group[rows])
        split.cells += len(rows)


def _plan_neighbours(plan: Plan, dataset: Dataset, splits: NDArray[np.int8]) -> None:
    """Append the neighbours of a data set's cells to the splits, before the cells themselves."""
    radius, sections = dataset.source.radius, dataset.sections
    points = None if radius is None else dataset.coordinates
    near = apart = 0
    for number, split in enumerate(plan.splits):
        rows = np.flatnonzero(splits == number)
        degrees = np.zeros(len(rows), np.int64)
        if points is not None and radius is not None and len(rows):
            indptr, indices = radius_graph(points[rows], radius, None if sections is None else sections.codes[rows])
            degrees = np.diff(indptr)
            split.neighbours.append(indices + np.int32(split.cells))
            near += len(indices)
            apart += _apart(dataset, rows, degrees, indices) if sections is None else 0
        split.degrees.append(degrees)
    if apart:
        dataset.report.append(
            f"{apart / near:.1%} of neighbours are of another donor or batch; if sections have coordinates of their "
            "own, name the column that tells them apart (spatial: section)"
        )


def _apart(dataset: Dataset, rows: NDArray[np.int64], degrees: NDArray[np.int64], indices: NDArray[np.int32]) -> int:
    """How many neighbours are of another donor or batch, where both are known."""
    apart = np.zeros(len(indices), bool)
    for name in ("donor", "batch"):
        column = dataset.field(name)[rows]
        known = (column.values != "")[column.codes]
        one, other = np.repeat(column.codes, degrees), column.codes[indices]
        apart |= (one != other) & np.repeat(known, degrees) & known[indices]
    return int(apart.sum())


def _samples(dataset: Dataset, fields: dict[str, Codes], known: dict[tuple, int]) -> NDArray[np.int32]:
    """Group id of each cell; cells of one data set that agree in the group fields share one."""
    combined = np.zeros(len(dataset.kept), dtype=np.int64)
    keys: list[tuple] = [()]
    for name in fmt.GROUP_FIELDS:
        codes, values = fields[name].codes, fields[name].values
        pairs, combined = np.unique(combined * len(values) + codes, return_inverse=True)
        keys = [(*keys[pair // len(values)], str(values[pair % len(values)])) for pair in pairs.tolist()]
    there = np.zeros(len(keys), bool)
    there[combined[dataset.kept]] = True
    ids = [known.setdefault((dataset.number, *key), len(known)) if used else -1 for key, used in zip(keys, there)]
    return np.asarray(ids, dtype=np.int32)[combined]
