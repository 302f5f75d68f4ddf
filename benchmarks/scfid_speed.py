"""scFID of two populations against the textbook's formula through ``scipy.linalg.sqrtm``, and of a stream of cells.

    python benchmarks/scfid_speed.py [--cells 2000] [--dimensions 512] [--stream 1000000] [--turns 5]

Prints JSON. The formula is in float64 as FID libraries compute it: ``np.cov`` of both, ``sqrtm`` of their product, the
trace. Ours takes the same cells, in float32 (the default) and in float64. The stream is made batch by batch and
measured in one pass; memory is the process's peak before and after.
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

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from c2s_jax.metrics import Moments, scfid, scfid_of_moments

BATCH = 16_384


def embeddings(rng: np.random.Generator, n: int, mixing: NDArray, shift: float) -> NDArray[np.float32]:
    """Embeddings with a decaying spectrum, as encoders give them."""
    return (rng.standard_normal((n, len(mixing)), np.float32) @ mixing + shift).astype(np.float32)


def mixings(d: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.normal(size=(d, d)))[0] * np.logspace(0, -2, d)
    right = left + 0.3 * left @ rng.normal(size=(d, d)) / np.sqrt(d)
    return left.T.astype(np.float32), right.T.astype(np.float32)


def textbook(real: NDArray, generated: NDArray) -> float:
    left, right = np.cov(real.T, dtype=np.float64), np.cov(generated.T, dtype=np.float64)
    root = sqrtm(left @ right)
    difference = real.mean(0, dtype=np.float64) - generated.mean(0, dtype=np.float64)
    return float(difference @ difference + np.trace(left) + np.trace(right) - 2 * np.trace(root.real))


def ours(real: NDArray, generated: NDArray, x64: bool) -> float:
    with jax.enable_x64(x64):
        return scfid(real.astype(np.float64) if x64 else real, generated)


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, seconds on the clock, and seconds of all cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = function()
    return out, time.perf_counter() - wall, time.process_time() - cpu


def compare(n: int, d: int, turns: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    left, right = mixings(d)
    real, generated = embeddings(rng, n, left, 0.0), embeddings(rng, n, right, 0.02)
    sides: dict[str, Callable[[], float]] = {
        "float32": lambda: ours(real, generated, False),
        "float64": lambda: ours(real, generated, True),
        "scipy": lambda: textbook(real, generated),
    }
    values = {name: side() for name, side in sides.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            times[name].append(timed(side)[1:])
    out: dict[str, Any] = {"scfid": values, "seconds": {k: median(t[0] for t in v) for k, v in times.items()}}
    for name in ("float32", "float64"):
        out[f"{name}_relative_difference"] = abs(values[name] / values["scipy"] - 1)
        for i, what in enumerate(("times_faster", "times_less_core_time")):
            out[f"{name}_{what}"] = median(s[i] / o[i] for s, o in zip(times["scipy"], times[name]))
    return out


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
