"""Kendall's tau-b of many pairs of scores, against a loop over SciPy's in the same run, in turns.

    python benchmarks/kendall_tau.py [--pairs 4096] [--genes 978] [--turns 5]

Prints JSON. SciPy's loop runs over every pair. Scores of three kinds: normal floats (no ties); minus the position in a
generated gene list against measured log expression (ties on both sides); and the same against integer counts.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from c2s_jax.metrics import kendall_tau_b


def workloads(pairs: int, genes: int) -> dict[str, tuple[NDArray, NDArray]]:
    """Pairs of scores [N, G] by name."""
    rng = np.random.default_rng(0)
    shape = (pairs, genes)
    mean = rng.lognormal(-1, 1.5, genes)
    counts = rng.poisson(mean * rng.gamma(2, 0.5, shape))
    positions = np.argsort(np.argsort(-rng.poisson(mean, shape) - rng.random(shape), axis=1), axis=1)
    absent_last = -np.minimum(positions, 300)
    return {
        "normal, no ties": (rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)),
        "positions and log expression": (absent_last, np.log10(1 + counts).astype(np.float32)),
        "positions and counts": (absent_last, counts),
    }


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, seconds on the clock, and seconds of all cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = function()
    return out, time.perf_counter() - wall, time.process_time() - cpu


def compare(left: NDArray, right: NDArray, turns: int) -> dict[str, Any]:
    kendall_tau_b(left[:2], right[:2])
    rows = []
    for _ in range(turns):
        ours, wall, cpu = timed(lambda: kendall_tau_b(left, right))
        theirs, their_wall, their_cpu = timed(lambda: [kendalltau(a, b).statistic for a, b in zip(left, right)])
        rows.append((wall, cpu, their_wall, their_cpu))
    walls = [r[2] / r[0] for r in rows]
    return {
        "seconds": median(r[0] for r in rows),
        "core_seconds": median(r[1] for r in rows),
        "scipy_seconds": median(r[2] for r in rows),
        "times_faster": median(walls),
        "times_faster_range": [min(walls), max(walls)],
        "times_less_core_time": median(r[3] / r[1] for r in rows),
        "largest_difference": float(np.abs(np.nan_to_num(theirs) - ours).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--genes", type=int, default=978)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    found = {
        name: compare(left, right, arguments.turns)
        for name, (left, right) in workloads(arguments.pairs, arguments.genes).items()
    }
    result = {
        "benchmark": "kendall_tau",
        "pairs": arguments.pairs,
        "genes": arguments.genes,
        "scores": found,
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "load": os.getloadavg()[0],
        "versions": {n: importlib.metadata.version(n) for n in ("numpy", "numba", "scipy")},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
