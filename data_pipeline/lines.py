"""The line from rank to expression of each data set, fitted on a sample of its training cells."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells import Ranked, RankExpression, fit_rank_expression
from c2s_jax.cells.errors import CellDataError
from c2s_jax.cells.ranking import mix
from c2s_jax.data.ragged import offsets
from data_pipeline.blocks import naming
from data_pipeline.converter import take
from data_pipeline.jobs import Job, Unit, unit_of_dataset, units_of

FIT_CELLS = 2048
"""Training cells of a data set on which its line is fitted."""

_SAMPLE = np.uint64(0x5851F42D4C957F2D)
_POOLED = "rank and expression are related by a line fitted on training cells of all data sets"


def sample_cells(splits: NDArray[np.int8], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark `FIT_CELLS` training cells (all, if there are fewer), drawn by their hashes."""
    drawn = splits == 0
    rows = np.flatnonzero(drawn)
    if len(rows) > FIT_CELLS:
        keys = mix(hashes[rows] ^ _SAMPLE)
        drawn[rows[np.argsort(keys, kind="stable")[FIT_CELLS:]]] = False
    return drawn


def fit(job: Job, unit: Unit) -> None:
    """The step ``fit``: fit the line of a data set on what its steps ``write`` left, and keep some cells for all."""
    whole, step = unit_of_dataset(unit.dataset), unit.step("fit")
    cells = job.staging.report(whole.step("describe"))["cells"]
    steps = [u.step("write") for u in units_of(unit.dataset, cells, job.options.unit_cells)]
    sample = _ranked(job.staging.arrays(s) for s in steps if job.staging.arrays_path(s).is_file())
    share = max(1, FIT_CELLS // len(job.sources))
    some = take(sample, np.arange(0, len(sample), max(1, len(sample) // share))[:share])
    files = job.staging.save_arrays(step, {"lengths": np.diff(some.indptr), "values": some.values})
    try:
        found: dict[str, Any] | None = fit_rank_expression(sample).to_dict()
    except CellDataError:
        found = None
    job.staging.finish(step, files, {"fit": found})


def dataset_lines(job: Job, datasets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of ``datasets.jsonl``, with each data set's line from rank to expression.

    A data set that has no training cells, or too few to fit a line, gets that of all data sets.

    Raises
    ------
    CellDataError
        If no line can be fitted at all.
    """
    steps = [unit_of_dataset(number).step("fit") for number in range(len(datasets))]
    fits = [job.staging.report(step)["fit"] for step in steps]
    if None not in fits:
        return [{**line, "rank_expression": found} for line, found in zip(datasets, fits, strict=True)]
    with naming(job.sources[fits.index(None)]):
        pooled: RankExpression = fit_rank_expression(_ranked(job.staging.arrays(step) for step in steps))
    for line, found in zip(datasets, fits, strict=True):
        if found is None:
            line["provenance"]["report"].append(_POOLED)
    return [{**line, "rank_expression": found or pooled.to_dict()} for line, found in zip(datasets, fits, strict=True)]


def _ranked(parts: Iterable[Mapping[str, NDArray]]) -> Ranked:
    """Sampled cells. What genes they have does not matter."""
    lengths, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for part in parts:
        lengths.append(part["lengths"])
        values.append(part["values"])
    together = np.concatenate(values)
    return Ranked(offsets(np.concatenate(lengths)), np.zeros(len(together), np.int32), together)
