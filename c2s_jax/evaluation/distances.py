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

    Distances fall with the number of cells, so of each condition a side has no more than there are real cells, as many
    as are generated; and they are measured alike on all sides, see `_gammas`.

    Resampled distances follow from the influence of each cell (`metrics.influence`), not from repeating cells, which
    would move them up.
    """
    points = real.points(embed)
    sizes, gammas = {condition: len(cells) for condition, cells in points.items()}, _gammas(points)
    scores: dict[str, dict[str, dict[str, Score]]] = {}
    counts: dict[str, dict[str, list[int]]] = {}
    for name, side in sides.items():
        scores[name], counts[name] = {metric: {} for metric in DISTANCES}, {}
        side = side.at_most(sizes, seed)
        others = side.points(embed)
        for condition in sorted(points.keys() & others.keys()):
            left, right = points[condition], others[condition]
            if min(len(left), len(right)) < MIN_CELLS:
                continue
            counts[name][condition] = [len(left), len(right)]
            drawn = weights(real.keys(condition), seed), weights(side.keys(condition), seed)
            for metric, (value, influence) in _measured(left, right, gammas[condition]).items():
                scores[name][metric][condition] = Score(value, value + influence.resampled(*drawn))
    return {
        name: found | {"condition_n": counts[name]} for name, found in told(scores, seed, model="generated").items()
    }


def _gammas(points: Mapping[str, NDArray]) -> dict[str, float]:
    """MMD's kernel for each condition with cells to compare: the median heuristic among its real cells.

    Where most of these are the same, among the real cells of all conditions.
    """
    compared = {condition: cells for condition, cells in points.items() if len(cells) >= MIN_CELLS}

    def width(cells: NDArray) -> float:
        try:
            return metrics.median_gamma(cells)
        except ValueError:
            return metrics.median_gamma(np.concatenate(list(compared.values())))

    return {condition: width(cells) for condition, cells in compared.items()}


def _measured(
    left: NDArray[np.floating], right: NDArray[np.floating], gamma: float
) -> dict[str, tuple[float, metrics.Influence]]:
    transport = metrics.transport(left, right)
    return {
        "scfid": (metrics.scfid(left, right), metrics.scfid_influence(left, right)),
        "mmd": (metrics.mmd(left, right, gammas=(gamma,)), metrics.mmd_influence(left, right, gamma)),
        "wasserstein": (transport.distance, metrics.wasserstein_influence(transport)),
    }
