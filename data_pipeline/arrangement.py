"""Which cells of all data sets go into the corpus, and into which split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.allocation import allocate
from data_pipeline.datasets import Dataset, measured, survey
from data_pipeline.duplicates import find_copies, treat_copies
from data_pipeline.jobs import Job, Unit


@dataclass(frozen=True)
class Arrangement:
    """Data sets with the split of each of their cells.

    Attributes
    ----------
    datasets : list of Dataset
    splits : list of int8 [C]
        −1 for cells that do not go into the corpus.
    report : list of str
        What there is to say about all data sets.
    """

    datasets: list[Dataset]
    splits: list[NDArray[np.int8]]
    report: list[str]


def arrange(job: Job, units: Sequence[list[Unit]]) -> Arrangement:
    """Choose cells and splits.

    Parameters
    ----------
    job : Job
    units : sequence of list of Unit
        Of the first data sets of the job; their steps ``describe`` and ``measure`` are done.

    Raises
    ------
    ValueError
        If a data set cannot be used; the message names it.
    """
    datasets, keys = [], []
    for number, its_units in enumerate(units):
        found = measured(job, its_units)
        datasets.append(survey(job, number, its_units, found))
        keys.append(found.copy_keys)
    copies = find_copies(keys, [dataset.kept for dataset in datasets])
    del keys
    report = treat_copies(datasets, copies, job.options.duplicates_cells)
    return Arrangement(datasets, allocate(datasets, copies, job.options), report)
