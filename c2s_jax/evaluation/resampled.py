"""Means over conditions with intervals: cells are drawn anew within conditions, conditions where there are enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.cells import hash_strings

RESAMPLES = 400
MIN_CONDITIONS = 10  # that are drawn anew, too; of fewer, their spread is not known
EVERYWHERE = (-np.inf, np.inf)
RANGE = (
    {"de_overlap": (0.0, 1.0)}
    | dict.fromkeys(("scfid", "mmd", "wasserstein"), (0.0, np.inf))
    | {f"{kind}_delta{genes}": (-1.0, 1.0) for kind in ("pearson", "spearman") for genes in ("", "_top")}
)  # in which intervals end


@dataclass(frozen=True)
class Score:
    """What a condition's cells score, and what they score with their weights drawn anew, float64 [RESAMPLES]."""

    value: float
    again: NDArray[np.float64]


Scores = Mapping[str, Mapping[str, Score]]
"""Metric → condition → score; every metric has the same conditions."""


def weights(key: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Of cells [n], drawn anew [RESAMPLES, n]; see `metrics.cell_weights`."""
    return metrics.cell_weights(key, resamples=RESAMPLES, seed=seed)


def told(sides: Mapping[str, Scores], seed: int, *, model: str) -> dict[str, dict[str, Any]]:
    """Of each side: unweighted means over conditions, each with its 95 % interval, and each condition's values.

    ``<metric>_ci`` is the interval of the mean, ``<metric>_gain_ci`` (of sides other than the model) that of how far
    the model's mean is above the side's, over the conditions that both have and under the same resamples.

    Notes
    -----
    Cells are always drawn anew within their condition, conditions only where there are ``MIN_CONDITIONS`` or more:
    the interval of fewer speaks of these conditions, not of others. The values of conditions differ by the sampling of
    their cells, too, so where both are drawn this counts twice, and the interval is up to √2 too wide. Percentiles are
    moved by the bias of resampling.
    """
    out = {}
    for name, scores in sides.items():
        found: dict[str, Any] = {}
        for metric, by_condition in scores.items():
            found[metric] = _mean(by_condition)
            found[f"{metric}_ci"] = _interval(by_condition, seed, RANGE.get(metric, EVERYWHERE))
            if name != model:
                found[f"{metric}_gain_ci"] = _interval(_gain(sides.get(model, {}).get(metric, {}), by_condition), seed)
            found[f"{metric}_by_condition"] = {condition: score.value for condition, score in by_condition.items()}
        n = len(next(iter(scores.values()), {}))
        out[name] = found | {"resampled": "conditions and cells" if n >= MIN_CONDITIONS else "cells"}
    return out


def _mean(by_condition: Mapping[str, Score]) -> float | None:
    return float(np.mean([score.value for score in by_condition.values()])) if by_condition else None


def _gain(model: Mapping[str, Score], side: Mapping[str, Score]) -> dict[str, Score]:
    return {
        condition: Score(model[condition].value - score.value, model[condition].again - score.again)
        for condition, score in side.items()
        if condition in model
    }


def _interval(
    by_condition: Mapping[str, Score], seed: int, within: tuple[float, float] = EVERYWHERE
) -> list[float] | None:
    """Of the mean; None without conditions."""
    if not by_condition:
        return None
    again = np.stack([score.again for score in by_condition.values()], axis=1)
    if len(by_condition) >= MIN_CONDITIONS:
        drawn = np.sum(weights(hash_strings(list(by_condition), domain="condition"), seed) * again, axis=1)
    else:
        drawn = again.mean(axis=1)
    mean = float(np.mean([score.value for score in by_condition.values()]))
    return np.clip(metrics.shifted_interval(mean, drawn), *within).tolist()
