"""Scrambles that a result has to beat, and the flags of those that do not."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.report.tables import MEASURES

WHAT = {
    "shuffled_labels": "cells under shuffled labels",
    "shuffled_genes": "the same genes in random order",
    "shuffled_pairs": "cells beside a random bulk sample",
    "shuffled_prompts": "answers to prompts about something else",
    "shuffled_cells": "the same asked about other examples' cells",
    "shuffled_questions": "other questions about the same cells",
    "control_name": "cells asked for under the control's name",
    "shuffled_perturbations": "cells asked for under shuffled perturbation names",
}


def unbeaten(values: Mapping[str, Any], scrambles: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Metrics of a suite that are no better than a scramble's: metric → names of these scrambles.

    Only of metrics that the report ranks (``MEASURES``). Where a scramble has ``<metric>_gain_ci``, the interval of how
    far the suite is above it, 0 must lie outside.
    """
    flags: dict[str, list[str]] = {}
    for scramble, scores in scrambles.items():
        for metric, score in scores.items():
            better = MEASURES[metric].better if metric in MEASURES else ""
            if values.get(metric) is None or score is None or not better:
                continue
            low, high = scores.get(f"{metric}_gain_ci") or (values[metric] - score,) * 2
            if not (low > 0 if better == "higher" else high < 0):
                flags.setdefault(metric, []).append(scramble)
    return flags


def told(scores: Mapping[str, NDArray], seed: int, *, below: Mapping[str, NDArray] | None = None) -> dict[str, Any]:
    """Means over examples of scores [N] by name, each with its interval (``<score>_ci``).

    Of a side that stands beside a model, whose scores are ``below``: ``<score>_gain_ci``, the interval of how far the
    model is above it.
    """
    if below is None:
        return means(scores) | {f"{name}_ci": interval(values, seed) for name, values in scores.items()}
    return means(scores) | {f"{name}_gain_ci": interval(below[name] - values, seed) for name, values in scores.items()}


def means(scores: Mapping[str, NDArray]) -> dict[str, float]:
    """Of scores [N] by name."""
    return {name: float(np.mean(values)) for name, values in scores.items()}


def interval(values: NDArray, seed: int) -> list[float] | None:
    """95 % bootstrap interval of the mean over examples; None of a single one."""
    if len(values) < 2:
        return None
    found = metrics.bootstrap(jnp.mean, np.asarray(values, np.float32), seed=seed)
    return [found.low, found.high]


def elsewhere(kinds: NDArray, seed: int) -> NDArray[np.int64] | None:
    """For each example one of another kind, int64 [N]; None where all are of one."""
    if len(np.unique(kinds)) < 2:
        return None
    rng = np.random.Generator(np.random.Philox(key=seed + 1))
    return np.array([rng.choice(np.flatnonzero(kinds != kind)) for kind in kinds])


def sentences(suite: str, values: Mapping[str, Any], scrambles: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The flags in words, for the report and the console."""
    return [
        f"{suite}: {metric} {values[metric]:.3f} does not beat {WHAT.get(name, name)} ({scrambles[name][metric]:.3f})"
        for metric, names in unbeaten(values, scrambles).items()
        for name in names
    ]
