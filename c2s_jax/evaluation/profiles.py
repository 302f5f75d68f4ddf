"""Mean training profiles that answer a perturbation without a model."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.data import CellSource

CHUNK = 4096  # cells read at once


@dataclasses.dataclass(frozen=True)
class Means:
    """Sums and counts of profiles by name: float64 [K, G] and int64 [K], names rising."""

    names: NDArray[np.str_]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    def of(self, wanted: NDArray) -> NDArray[np.float64]:
        """Mean under each name [N, G]; over everything where a name has no profile."""
        total = self.sums.sum(0) / max(self.counts.sum(), 1)
        at = np.minimum(np.searchsorted(self.names, wanted), len(self.names) - 1)
        known = (self.names[at] == wanted) & (self.counts[at] > 0)
        return np.where(known[:, None], self.sums[at] / np.maximum(self.counts[at], 1)[:, None], total)

    def knows(self, wanted: NDArray) -> NDArray[np.bool_]:
        """Which names have a profile, bool [N]."""
        return np.isin(wanted, self.names[self.counts > 0])


@dataclasses.dataclass(frozen=True)
class TrainingProfiles:
    """Means of training profiles.

    Attributes
    ----------
    perturbation
        Treated cells by perturbation, of any line.
    line
        Treated cells by line (``cell_type``), under any perturbation.
    shift
        Change by perturbation: treated cells less the mean control of each one's line, or less the mean of all
        controls where its line has none.
    """

    perturbation: Means
    line: Means
    shift: Means


def training_profiles(
    cells: CellSource, treated: NDArray[np.bool_], control: NDArray[np.bool_], n_genes: int
) -> TrainingProfiles:
    """Means over the treated and the control cells of a training split; reads each of them once, in blocks."""
    lines, line = np.unique(cells.fields("cell_type"), return_inverse=True)
    names, name = np.unique(cells.fields("perturbation"), return_inverse=True)
    by_line, by_control = np.zeros((2, len(lines), n_genes))
    by_name = np.zeros((len(names), n_genes))
    for start in range(0, len(cells), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(cells)))
        rows = rows[(treated | control)[rows]]
        values, is_treated = cells.take(rows).matrix(n_genes), treated[rows]
        by_name += _sums(name[rows], is_treated, values, len(names))
        by_line += _sums(line[rows], is_treated, values, len(lines))
        by_control += _sums(line[rows], ~is_treated, values, len(lines))
    pairs = np.zeros((len(names), len(lines)), np.int64)
    np.add.at(pairs, (name[treated], line[treated]), 1)
    controls = Means(lines, by_control, np.bincount(line[control], minlength=len(lines)))
    counts = pairs.sum(1)
    return TrainingProfiles(
        Means(names, by_name, counts),
        Means(lines, by_line, pairs.sum(0)),
        Means(names, by_name - pairs @ controls.of(lines), counts),
    )


def _sums(group: NDArray, chosen: NDArray, values: sparse.csr_matrix, n: int) -> NDArray[np.float64]:
    """Sum of the chosen rows of each group [n, G]."""
    at = np.flatnonzero(chosen)
    member = sparse.csr_matrix((np.ones(len(at)), (group[at], at)), (n, values.shape[0]))
    return (member @ values).toarray()
