"""Distances between cells of the same condition, in one space."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.evaluation.resampled import Score, told, weights
from c2s_jax.evaluation.sides import MIN_CELLS, Embed, Side

DISTANCES = ("scfid", "mmd", "wasserstein")


def distance_metrics(real: Side, sides: Mapping[str, Side], embed: Embed, seed: int) -> dict[str, dict[str, Any]]:
    """Of each side: means over conditions with two cells or more on both, intervals, and each condition's values.

    Resampled distances follow from the influence of each cell (`metrics.influence`), not from repeating cells, which
    would move them up.
    """
    points = real.points(embed)
    scores: dict[str, dict[str, dict[str, Score]]] = {}
    counts: dict[str, dict[str, list[int]]] = {}
    for name, side in sides.items():
        scores[name], counts[name] = {metric: {} for metric in DISTANCES}, {}
        others = side.points(embed)
        for condition in sorted(points.keys() & others.keys()):
            left, right = points[condition], others[condition]
            if min(len(left), len(right)) < MIN_CELLS:
                continue
            counts[name][condition] = [len(left), len(right)]
            drawn = weights(real.keys(condition), seed), weights(side.keys(condition), seed)
            for metric, (value, influence) in _measured(left, right).items():
                scores[name][metric][condition] = Score(value, value + influence.resampled(*drawn))
    return {
        name: found | {"condition_n": counts[name]} for name, found in told(scores, seed, model="generated").items()
    }


def _measured(left: NDArray[np.floating], right: NDArray[np.floating]) -> dict[str, tuple[float, metrics.Influence]]:
    gamma = metrics.median_gamma(left, right)
    transport = metrics.transport(left, right)
    return {
        "scfid": (metrics.scfid(left, right), metrics.scfid_influence(left, right)),
        "mmd": (metrics.mmd(left, right, gammas=(gamma,)), metrics.mmd_influence(left, right, gamma)),
        "wasserstein": (transport.distance, metrics.wasserstein_influence(transport)),
    }
