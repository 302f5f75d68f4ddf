"""What a perturbation did to expression, under many weightings of the cells at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CHANGE_SCORES = ("pearson_delta", "spearman_delta", "pearson_delta_top", "spearman_delta_top", "de_overlap")


@dataclass(frozen=True)
class Profiles:
    """Mean and variance (ddof 1) of expression under R weightings of n cells, float64 [R, G]."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    n: int

    @staticmethod
    def of(cells: ArrayLike, weights: NDArray[np.float64]) -> "Profiles":
        """Of log expression [n, G], at least two cells, under weights [R, n] whose rows sum to 1."""
        values = np.asarray(cells, np.float64)
        n, centre = len(values), values.mean(axis=0)
        apart = np.where(np.ptp(values, axis=0) == 0, 0.0, values - centre)
        mean = weights @ apart
        variance = np.maximum(weights @ apart**2 - mean**2, 0) * (n / (n - 1))
        return Profiles(centre + mean, variance, n)

    def top(self, control: "Profiles", k: int) -> NDArray[np.int64]:
        """The k genes of the largest absolute score of Welch's t-test against control cells, [R, k] in no order.

        As in `de_genes`: a gene that is constant on both sides scores 0 if its means agree, infinity if they do not.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.sqrt(self.variance / self.n + control.variance / control.n)
            score = np.nan_to_num(np.abs(self.mean - control.mean) / error, posinf=np.inf)
        return np.argpartition(-score, k - 1, axis=1)[:, :k]


class MeasuredChange:
    """Change of real cells from control cells, against which others are held.

    Parameters
    ----------
    real, control
        Under the same R resamples.
    k
        Genes that count as those that differ most (`Profiles.top`), in every resample anew.
    """

    def __init__(self, real: Profiles, control: Profiles, k: int):
        self._control, self._delta = control, real.mean - control.mean
        self._k = min(k, self._delta.shape[1])
        self._top = real.top(control, self._k)
        self._all = _Compared(self._delta)
        self._few = _Compared(np.take_along_axis(self._delta, self._top, axis=1))

    def scores(self, made: Profiles) -> dict[str, NDArray[np.float64]]:
        """Of predicted cells, by name (``CHANGE_SCORES``), each [R]; a change that is constant scores 0."""
        delta = made.mean - self._control.mean
        few = np.take_along_axis(delta, self._top, axis=1)
        own = np.zeros(delta.shape, bool)
        np.put_along_axis(own, made.top(self._control, self._k), True, axis=1)
        shared = np.take_along_axis(own, self._top, axis=1).mean(axis=1)
        shared[np.ptp(delta, axis=1) == 0] = 0
        values = (*self._all.with_(delta), *self._few.with_(few), shared)
        return dict(zip(CHANGE_SCORES, values, strict=True))


class _Compared:
    """Rows [R, G] with which others are correlated, by value and by rank."""

    def __init__(self, rows: NDArray[np.float64]):
        self._sides = [_standard(x) for x in (rows, stats.rankdata(rows, axis=1))]

    def with_(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pearson's and Spearman's correlation of each pair of rows."""
        others = (_standard(x) for x in (rows, stats.rankdata(rows, axis=1)))
        pearson, spearman = (np.einsum("RG,RG->R", a, b) for a, b in zip(self._sides, others))
        return pearson, spearman


def _standard(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of mean 0 and norm 1; of a constant one zeros."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    constant = np.ptp(rows, axis=1, keepdims=True) == 0
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, np.linalg.norm(centred, axis=1, keepdims=True)))
