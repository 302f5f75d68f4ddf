"""MMD against the definition through scikit-learn's kernels."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from c2s_jax.metrics import CELLOT_GAMMAS, median_gamma, mmd


def cells(offset: float = 0.0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 5)) + offset, rng.normal(size=(70, 5)) * 1.3 + 0.2 + offset


def by_definition(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], gammas: Any, unbiased: bool) -> float:
    out = []
    for gamma in gammas:
        xx, yy, xy = (rbf_kernel(a, b, gamma) for a, b in ((x, x), (y, y), (x, y)))
        if unbiased:
            xx, yy = (k[~np.eye(len(k), dtype=bool)] for k in (xx, yy))
        out.append(xx.mean() + yy.mean() - 2 * xy.mean())
    return float(np.mean(out))


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(("offset", "rows"), [(0.0, 1024), (500.0, 32)])
def test_agrees_with_the_definition(unbiased: bool, offset: float, rows: int) -> None:
    x, y = cells(offset)
    estimator: Any = "unbiased" if unbiased else "biased"
    want = by_definition(x, y, CELLOT_GAMMAS, unbiased)
    assert mmd(x, y, estimator=estimator, rows=rows) == pytest.approx(want, abs=1e-6)
    with jax.enable_x64(True):
        assert mmd(x, y, estimator=estimator, rows=rows) == pytest.approx(want, rel=1e-9)


def test_median_heuristic() -> None:
    x, y = cells()
    gamma = 1 / (2 * np.median(pdist(np.concatenate([x, y]))) ** 2)
    assert median_gamma(x, y) == pytest.approx(gamma)
    assert mmd(x, y, gammas="median") == pytest.approx(by_definition(x, y, [gamma], False), abs=1e-6)
    assert median_gamma(x) == pytest.approx(1 / (2 * np.median(pdist(x)) ** 2))
    assert median_gamma(x, y, max_cells=100) == pytest.approx(gamma, rel=0.1)


def test_unbiased_is_about_zero_and_biased_is_not() -> None:
    """Halves of one population: the biased estimate falls with n and stays above 0."""
    rng = np.random.default_rng(1)
    halves = [rng.normal(size=(2, 60, 5)) for _ in range(20)]
    unbiased = [mmd(*h, estimator="unbiased") for h in halves]
    assert abs(np.mean(unbiased)) < 2 * np.std(unbiased) / np.sqrt(20)
    assert min(mmd(*h) for h in halves) > 5 * abs(np.mean(unbiased))


@pytest.mark.parametrize(
    ("n", "settings", "message"),
    [
        (1, {"estimator": "unbiased"}, "at least 2 cells a side"),
        (5, {"gammas": [1.0, 0.0]}, "must be positive"),
        (5, {"estimator": "both"}, "'biased' or 'unbiased'"),
    ],
)
def test_bad_settings_say_what_is_wrong(n: int, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mmd(np.ones((n, 2)), np.ones((n, 2)), **settings)
    with pytest.raises(ValueError, match="median distance is 0"):
        median_gamma(np.ones((4, 2)), np.ones((4, 2)))
