"""scFID of two populations against the textbook's formula through ``scipy.linalg.sqrtm``, and of a stream of cells.

    python benchmarks/scfid_speed.py [--cells 2000] [--dimensions 512] [--stream 1000000] [--turns 5]

Prints JSON. The formula is in float64 as FID libraries compute it: ``np.cov`` of both, ``sqrtm`` of their product, the
trace. Ours takes the same cells; and with the moments given, ``frechet_distance`` stands against the formula alone.
SciPy's threads get in each other's way on few cores: OPENBLAS_NUM_THREADS=1 serves both sides best. The stream is made
batch by batch and measured in one pass; memory is the process's peak before and after.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from c2s_jax.metrics import Moments, frechet_distance, scfid, scfid_of_moments

BATCH = 16_384


def embeddings(rng: np.random.Generator, n: int, mixing: NDArray, shift: float) -> NDArray[np.float32]:
    """Embeddings with a decaying spectrum, as encoders give them."""
    return (rng.standard_normal((n, len(mixing)), np.float32) @ mixing + shift).astype(np.float32)


def mixings(d: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.normal(size=(d, d)))[0] * np.logspace(0, -2, d)
    right = left + 0.3 * left @ rng.normal(size=(d, d)) / np.sqrt(d)
    return left.T.astype(np.float32), right.T.astype(np.float32)


def formula(real: tuple[NDArray, NDArray], generated: tuple[NDArray, NDArray]) -> float:
    """The textbook's, of mean and covariance."""
    (left_mean, left), (right_mean, right) = real, generated
    difference, root = left_mean - right_mean, sqrtm(left @ right)
    return float(difference @ difference + np.trace(left) + np.trace(right) - 2 * np.trace(root.real))


def textbook(real: NDArray, generated: NDArray) -> float:
    """The textbook's, of cells."""
    return formula(moments(real), moments(generated))


def moments(cells: NDArray) -> tuple[NDArray, NDArray]:
    """Mean and covariance."""
    return cells.mean(0, dtype=np.float64), np.cov(cells.T, dtype=np.float64)


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, seconds on the clock, and seconds of all cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = function()
    return out, time.perf_counter() - wall, time.process_time() - cpu


def compare(n: int, d: int, turns: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    left, right = mixings(d)
    real, generated = embeddings(rng, n, left, 0.0), embeddings(rng, n, right, 0.02)
    there, made = moments(real), moments(generated)
    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "of_cells": (lambda: scfid(real, generated), lambda: textbook(real, generated)),
        "of_moments": (lambda: frechet_distance(*there, *made), lambda: formula(there, made)),
    }
    return {name: beside(*pair, turns) for name, pair in pairs.items()}


def beside(ours: Callable[[], float], theirs: Callable[[], float], turns: int) -> dict[str, Any]:
    """Two ways to the same value, in turns."""
    values = ours(), theirs()
    times = [(timed(ours)[1:], timed(theirs)[1:]) for _ in range(turns)]
    out: dict[str, Any] = {"scfid": values[0], "relative_difference": abs(values[0] / values[1] - 1)}
    for i, what in enumerate(("seconds", "core_seconds")):
        out[what] = median(mine[i] for mine, _ in times)
        out[f"scipy_{what}"] = median(scipys[i] for _, scipys in times)
    out["times_faster"] = median(scipys[0] / mine[0] for mine, scipys in times)
    return out | {"times_less_core_time": median(scipys[1] / mine[1] for mine, scipys in times)}


def stream(n: int, d: int) -> dict[str, Any]:
    left, right = mixings(d)

    def cells(mixing: NDArray, seed: int, shift: float, n: int) -> Iterator[NDArray]:
        for start in range(0, n, BATCH):
            yield embeddings(np.random.default_rng([seed, start]), min(BATCH, n - start), mixing, shift)

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    generated = Moments.of_batches(cells(right, 2, 0.02, 4 * BATCH))
    before = peak()
    real, wall, cpu = timed(lambda: Moments.of_batches(cells(left, 1, 0.0, n)))
    _, making, _ = timed(lambda: sum(len(c) for c in cells(left, 1, 0.0, n)))
    distance, finish, _ = timed(lambda: scfid_of_moments(real, generated))
    exact = left.T.astype(np.float64) @ left
    return {
        "cells": real.n,
        "seconds_with_making_cells": wall,
        "seconds_making_cells_alone": making,
        "core_seconds": cpu,
        "seconds_of_the_distance": finish,
        "scfid": distance,
        "covariance_error_over_largest": float(np.abs(real.covariance - exact).max() / exact.max()),
        "peak_gib_after_4_batches": before,
        "peak_gib_at_the_end": peak(),
        "gib_of_all_cells": n * d * 4 / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--stream", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    a = parser.parse_args()
    result = {
        "benchmark": "scfid_speed",
        "cells": a.cells,
        "dimensions": a.dimensions,
        "stream": stream(a.stream, a.dimensions),
        "against_scipy": compare(a.cells, a.dimensions, a.turns),
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "load": os.getloadavg()[0],
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "numpy", "scipy")},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
