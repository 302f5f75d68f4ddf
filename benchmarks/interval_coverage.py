"""How often an interval of a distance or of a change holds what it should: the mean over samples as large.

    python -m benchmarks.interval_coverage [--samples=800] [--redrawn=50]

Cells are drawn from two made-up populations that differ, or do not, in mean and spread, with tails heavier than a
Gaussian's. Each distance's interval is made twice: by drawing cells anew and moving percentiles by the bias of that,
and by influences of cells (`c2s_jax.metrics.influence`). Beside the share of 95 % intervals that hold the expectation
stands the mean standard deviation of resamples over that of the distance from sample to sample: 1 is right.
Prints JSON.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from c2s_jax import metrics
from c2s_jax.metrics import CHANGE_SCORES, MeasuredChange, Profiles

RESAMPLES = 200
POPULATIONS = {
    "60 cells, 16 dimensions": (60, 16, 0.3, 1.2),
    "60 cells, 16 dimensions, one population": (60, 16, 0.0, 1.0),
    "200 cells, 50 dimensions": (200, 50, 0.1, 1.1),
    "40 cells, 50 dimensions": (40, 50, 0.2, 1.2),
    "10 cells, 16 dimensions": (10, 16, 0.5, 1.2),
}
CHANGES = {"25 cells": (25, 0.5), "25 cells, little in common": (25, 0.1), "100 cells": (100, 0.5)}
GENES, TOP = 300, 50

Estimate = tuple[float, NDArray[np.float64]]
"""A figure, and its resamples [RESAMPLES]."""


def pairs(n: int, d: int, shift: float, scale: float, count: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Samples of both populations."""
    spread = np.linspace(2, 0.3, d)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_t(6, (2, n, d)) * spread
        yield x, shift + scale * y


def weights(n: int, seed: int) -> list[NDArray]:
    """Of both sides."""
    return [metrics.cell_weights(np.arange(n) + first, resamples=RESAMPLES, seed=seed) for first in (0, n)]


def by_influence(x: NDArray, y: NDArray, gamma: float, seed: int) -> dict[str, Estimate]:
    """Of each distance."""
    transport, drawn = metrics.transport(x, y), weights(len(x), seed)
    found = {
        "scfid": (metrics.scfid(x, y), metrics.scfid_influence(x, y)),
        "mmd": (metrics.mmd(x, y, gammas=(gamma,)), metrics.mmd_influence(x, y, gamma)),
        "wasserstein": (transport.distance, metrics.wasserstein_influence(transport)),
    }
    return {name: (value, value + influence.resampled(*drawn)) for name, (value, influence) in found.items()}


def by_drawing(x: NDArray, y: NDArray, gamma: float, seed: int) -> dict[str, Estimate]:
    """Of scFID and MMD, whose resamples are quick enough to be had."""
    w, v = weights(len(x), seed)
    z, c = np.concatenate([x, y]), np.concatenate([w, -v], axis=1)
    kernel = np.exp(-gamma * cdist(z, z, "sqeuclidean"))
    scfid = [metrics.frechet_distance(*_moments(x, p), *_moments(y, q)) for p, q in zip(w, v)]
    return {
        "scfid": (metrics.scfid(x, y), np.array(scfid)),
        "mmd": (metrics.mmd(x, y, gammas=(gamma,)), np.sum((c @ kernel) * c, axis=1)),
    }


def _moments(cells: NDArray, weight: NDArray) -> tuple[NDArray, NDArray]:
    n = len(cells)
    return weight @ cells, np.cov(cells, rowvar=False, aweights=weight, ddof=0) * n / (n - 1)


def changes(n: int, strength: float, seed: int) -> dict[str, Estimate]:
    """Of the scores of a change, of n real, predicted and control cells."""
    rng, effect = np.random.default_rng(seed), np.linspace(-1, 1, GENES)
    sides = [rng.normal(2, 0.8, (n, GENES)) + s * effect for s in (1, strength, 0)]

    def scores(*drawn: NDArray) -> dict[str, NDArray]:
        real, made, control = (Profiles.of(cells, w) for cells, w in zip(sides, drawn, strict=True))
        return MeasuredChange(real, control, TOP).scores(made)

    even = scores(*[np.full((1, n), 1 / n)] * 3)
    again = scores(*(metrics.cell_weights(np.arange(n) + k * n, resamples=RESAMPLES, seed=seed) for k in range(3)))
    return {name: (float(even[name][0]), again[name]) for name in CHANGE_SCORES}


def told(found: list[dict[str, Estimate]], expected: dict[str, NDArray]) -> dict[str, Any]:
    """Share of intervals that hold the expectation, and their width beside what it should be."""
    out = {}
    for name in found[0]:
        ends = np.array([metrics.shifted_interval(*one[name]) for one in found])
        mean, spread = expected[name].mean(), expected[name].std(ddof=1)
        held = np.mean((ends[:, 0] <= mean) & (mean <= ends[:, 1]))
        width = np.mean([one[name][1].std() for one in found]) / spread
        out[name] = {"expectation": round(float(mean), 4), "held": round(float(held), 3), "width": round(width, 2)}
    return out


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=800, help="that tell the expectation, and get intervals")
    parser.add_argument("--redrawn", type=int, default=50, help="of them, that get intervals by drawing, too")
    given = parser.parse_args()
    results: dict[str, Any] = {"distances": {}, "changes": {}}
    for name, (n, d, shift, scale) in POPULATIONS.items():
        samples = list(pairs(n, d, shift, scale, given.samples))
        gamma = metrics.median_gamma(*samples[0])
        every = [by_influence(x, y, gamma, i) for i, (x, y) in enumerate(samples)]
        expected = {key: np.array([one[key][0] for one in every]) for key in every[0]}
        drawn = [by_drawing(x, y, gamma, i) for i, (x, y) in enumerate(samples[: given.redrawn])]
        results["distances"][name] = {"influence": told(every, expected), "drawing": told(drawn, expected)}
    for name, (n, strength) in CHANGES.items():
        found = [changes(n, strength, seed) for seed in range(given.samples)]
        expected = {key: np.array([one[key][0] for one in found]) for key in CHANGE_SCORES}
        results["changes"][name] = told(found, expected)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
