"""Cells to measure distances between, and the textbook's scFID of them."""

from typing import Any

import numpy as np
from scipy.linalg import sqrtm

# (real cells, generated cells, dimensions, decades of standard deviations, common offset)
POPULATIONS = {
    "well-conditioned": (500, 400, 24, 0, 0.0),
    "ill-conditioned": (500, 400, 24, 3, 0.0),
    "fewer cells than dimensions": (15, 11, 24, 0, 0.0),
    "two cells": (2, 300, 24, 1, 0.0),
    "far from the origin": (300, 70, 24, 1, 300.0),
}


def population(name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    n, m, d, decades, offset = POPULATIONS[name]
    rng = np.random.default_rng(len(name))
    scale = np.logspace(0, -decades, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0] * np.eye(d)
    mixing = np.linalg.qr(rng.normal(size=(d, d)))[0] * np.logspace(0, -decades, d)
    real = rng.normal(size=(n, d)) @ mixing.T + offset
    generated = 1.3 * rng.normal(size=(m, d)) @ (mixing[:, ::-1] + 0.2 * scale).T + 0.1 + offset
    return real, generated


def textbook(real: np.ndarray[Any, Any], generated: np.ndarray[Any, Any]) -> float:
    """The formula in float64, through SciPy's Schur square root of the unsymmetric product."""
    left, right = np.cov(real.T), np.cov(generated.T)
    root = np.trace(sqrtm(left @ right).real)
    return float(((real.mean(0) - generated.mean(0)) ** 2).sum() + np.trace(left) + np.trace(right) - 2 * root)
