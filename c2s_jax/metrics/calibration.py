"""Do stated probabilities come true? Reliability by bins, expected calibration error, Brier score."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Calibration:
    """Calibration of the probability of the answer given (top label).

    Attributes
    ----------
    ece
        Expected calibration error (Naeini et al. 2015; Guo et al. 2017, eq. 3): mean over bins, weighted by their
        cells, of the gap between confidence and accuracy.
    brier
        Mean squared difference of confidence and right (1) or wrong (0) (Brier 1950), of the top label alone.
    edges
        Of the bins, [B + 1].
    n
        Answers in each bin, [B].
    confidence, accuracy
        Their mean probability and the share that is right, [B]; None in an empty bin.
    """

    ece: float
    brier: float
    edges: list[float]
    n: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def calibration(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10) -> Calibration:
    """Compare probabilities of answers with how often these are right.

    Parameters
    ----------
    confidence
        Probability of each answer, [N], within [0, 1].
    correct
        Whether it is right, bool [N].
    bins
        Of equal width, closed on the left (the last one on both sides).

    Raises
    ------
    ValueError
        On different lengths, no answers, or a confidence outside [0, 1].
    """
    p, right = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if p.ndim != 1 or p.shape != right.shape or not p.size:
        raise ValueError(f"confidence and correct must be [N] with N > 0, got shapes {p.shape} and {right.shape}")
    if bad := np.flatnonzero(~((p >= 0) & (p <= 1))).tolist():
        raise ValueError(f"confidence {p[bad[0]]} of answer {bad[0]} is outside [0, 1]")
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    edges = np.linspace(0, 1, bins + 1)
    at = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, bins - 1)
    n = np.bincount(at, minlength=bins)
    sums = (np.bincount(at, weights=x, minlength=bins) for x in (p, right.astype(np.float64)))
    means = [np.divide(s, n, out=np.full(bins, np.nan), where=n > 0) for s in sums]
    return Calibration(
        float(np.nansum(n * np.abs(means[0] - means[1])) / len(p)),
        float(np.mean((p - right) ** 2)),
        edges.tolist(),
        n.tolist(),
        *([None if np.isnan(x) else float(x) for x in mean] for mean in means),
    )
