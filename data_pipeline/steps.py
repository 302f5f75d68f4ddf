"""What workers do: some steps, each a function of the job and a unit that leaves its result in the staging folder.

``describe`` reads the annotation of a data set, ``measure`` the statistics of a unit, ``sum`` adds up its counts where
pseudobulk is asked for, ``write`` writes its shards as the plan says, ``fit`` fits a data set's line from rank to
expression. A step that is done is not done again, so an
interrupted build goes on where it was.
"""

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.statistics import measure, merge_statistics
from data_pipeline.blocks import OpenDataset, block_bounds, naming, statistics_arrays
from data_pipeline.converter import BlockConverter, take
from data_pipeline.duplicates import copy_keys
from data_pipeline.jobs import Job, Unit
from data_pipeline.lines import fit
from data_pipeline.pseudobulk import sum_unit
from data_pipeline.records import Codes
from data_pipeline.split import cell_hashes
from data_pipeline.unit_plan import UnitPlan
from data_pipeline.writer import ShardWriter

Advance = Callable[[int], None]
Opened = Callable[[], OpenDataset]


class Worker:
    """Does steps of one job, one after another; keeps the data set it read last open. A context manager."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open: tuple[int, OpenDataset] | None = None

    def run(self, kind: str, unit: Unit, advance: Advance) -> None:
        """Do a step, unless it is done; `advance` is called with the number of cells that are."""
        staging = self._job.staging
        if not staging.work.is_dir():
            raise FileNotFoundError(
                f"{staging.folder} is not there on this machine: the output must lie on a file system that all workers "
                "share, under the same path"
            )
        if staging.done(unit.step(kind)) is not None:
            advance(len(unit))
            return
        with naming(self._job.sources[unit.dataset]):
            STEPS[kind](self._job, unit, lambda: self._dataset(unit.dataset), advance)

    def _dataset(self, number: int) -> OpenDataset:
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = number, OpenDataset.open(self._job.sources[number], self._job.staging.scratch)
        return self._open[1]

    def close(self) -> None:
        """Close the data set that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _describe(job: Job, unit: Unit, opened: Opened, advance: Advance) -> None:
    dataset = opened()
    source, table, columns = dataset.source, dataset.table, dataset.columns
    report = list(dataset.report)
    arrays: dict[str, NDArray] = {"names": np.array(columns.names, dtype=np.str_)}
    if columns.place is not None:
        arrays["place"] = columns.place
    for name, texts in source.texts(table.obs).items():
        column = Codes.of(texts)
        arrays |= {f"{name}.codes": column.codes, f"{name}.values": column.values}
    if source.spatial_key is not None:
        arrays["coordinates"] = table.coordinates(source.spatial_key)
    if source.section is not None:
        sections = Codes.of(source.sections(table.obs))
        arrays |= {"section.codes": sections.codes, "section.values": sections.values}
        report.append(f"obs[{source.section!r}] tells apart {len(sections.values)} sections in space")
    base = table.log1p_base
    facts = {
        "cells": table.n_cells,
        "matrix": table.matrix_name,
        "log1p_base": base if base is None or isinstance(base, str) else float(base),
        "report": report,
    }
    step = unit.step("describe")
    job.staging.finish(step, job.staging.save_arrays(step, arrays), facts)


def _measure(job: Job, unit: Unit, opened: Opened, advance: Advance) -> None:
    dataset = opened()
    source, table = dataset.source, dataset.table
    parts, keys = [], []
    for start, stop in block_bounds(unit.start, unit.stop):
        matrix = dataset.rows(start, stop)
        parts.append(
            measure(
                matrix,
                dataset.columns,
                first=start,
                n_cells=table.n_cells,
                min_genes=source.min_genes,
                min_cells=source.min_cells,
            )
        )
        keys.append(copy_keys(table.obs.index[start:stop].tolist(), matrix, dataset.gene_hashes))
        advance(stop - start)
    arrays = statistics_arrays(merge_statistics(parts))
    arrays["copy_keys"] = np.concatenate(keys)
    arrays["split_hashes"] = cell_hashes(table.obs.index[unit.start : unit.stop].tolist(), job.options.seed)
    step = unit.step("measure")
    job.staging.finish(step, job.staging.save_arrays(step, arrays), {})


def _write(job: Job, unit: Unit, opened: Opened, advance: Advance) -> None:
    staging, plan = job.staging, UnitPlan.load(job.staging, unit)
    convert = BlockConverter(job, unit, opened(), plan)
    samples = []
    with ExitStack() as stack:
        shards = {split: ShardWriter(staging.corpus / name, staging.output) for split, name in plan.shards.items()}
        for shard in shards.values():
            stack.callback(shard.abandon)
        for start, stop in block_bounds(unit.start, unit.stop):
            cells = plan.within(start, stop)
            ranked = convert.ranked(start, stop, cells)
            samples.append(take(ranked, np.flatnonzero(plan.sampled[cells])))
            records = convert.block(ranked, cells).serialize()
            for record, split in zip(records, plan.splits[cells].tolist(), strict=True):
                shards[split].write(record)
            advance(stop - start)
        files = {staging.corpus / plan.shards[split]: shard.close() for split, shard in shards.items()}
    arrays = {
        "lengths": np.concatenate([np.diff(s.indptr) for s in samples]),
        "values": np.concatenate([s.values for s in samples]),
    }
    step = unit.step("write")
    staging.finish(step, files | staging.save_arrays(step, arrays), {})


def _sum(job: Job, unit: Unit, opened: Opened, advance: Advance) -> None:
    sum_unit(job, unit, opened(), advance)


def _fit(job: Job, unit: Unit, opened: Opened, advance: Advance) -> None:
    fit(job, unit)


STEPS = {"describe": _describe, "measure": _measure, "sum": _sum, "write": _write, "fit": _fit}
