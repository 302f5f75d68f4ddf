"""Changes of mean expression from control cells, and the genes that they make stand out, by condition."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.evaluation.resampled import Score, told, weights
from c2s_jax.evaluation.sides import MIN_CELLS, Side

TOP = 50  # genes that differ most


def change_metrics(real: Side, sides: Mapping[str, Side], control: Side, seed: int) -> dict[str, dict[str, Any]]:
    """Agreement of each side's change from the type's control cells with that of real cells.

    Pearson's and Spearman's correlation of the change of mean expression, over all genes and over the ``TOP`` that
    differ most between real and control cells (``_top``), and which share of these is among as many of the side's own
    (``de_overlap``). Means over conditions with two cells or more on all three sides, their intervals, and each
    condition's values. A change that is constant correlates with nothing: 0, and so does it share no genes.

    Intervals draw real, control and the side's cells anew, and choose the genes that differ most anew from them.
    """
    by: dict[str, dict[str, dict[str, Score]]] = {name: {} for name in sides}
    for condition in sorted(real.rows):
        measured, base = real.expression(condition), control.expression(condition)
        if min(len(measured), len(base)) < MIN_CELLS:
            continue
        top = metrics.de_genes(measured, base)[:TOP]
        again = metrics.MeasuredChange(_profiles(real, condition, seed), _profiles(control, condition, seed), TOP)
        for name, side in sides.items():
            cells = side.expression(condition)
            if len(cells) >= MIN_CELLS:
                drawn = again.scores(_profiles(side, condition, seed))
                for metric, value in _agreement(measured, cells, base, top).items():
                    by[name].setdefault(metric, {})[condition] = Score(value, drawn[metric])
    return told({name: found for name, found in by.items() if found}, seed, model="generated")


def _profiles(side: Side, condition: str, seed: int) -> metrics.Profiles:
    return metrics.Profiles.of(side.expression(condition), weights(side.keys(condition), seed))


def _agreement(real: NDArray, cells: NDArray, control: NDArray, top: NDArray[np.int64]) -> dict[str, float]:
    every = metrics.delta_correlation(real, cells, control)
    most = metrics.delta_correlation(real[:, top], cells[:, top], control[:, top])
    shared = 0.0
    if np.ptp(cells.mean(axis=0, dtype=np.float64) - control.mean(axis=0, dtype=np.float64)) > 0:
        own = metrics.de_genes(cells, control)[: len(top)]
        shared = len(np.intersect1d(own, top)) / len(top)
    return {
        "pearson_delta": every.pearson,
        "spearman_delta": every.spearman,
        "pearson_delta_top": most.pearson,
        "spearman_delta_top": most.spearman,
        "de_overlap": shared,
    }
