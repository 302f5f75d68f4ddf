"""Wasserstein distances against SciPy's assignment, closed forms and each other."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from c2s_jax.metrics import transport, wasserstein


def cells(n: int, m: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 3)) + 50, rng.normal(size=(m, 3)) * 1.2 + 51


def test_exact_is_the_best_assignment() -> None:
    x, y = cells(40, 40)
    cost = cdist(x, y, "sqeuclidean")
    assert wasserstein(x, y) == pytest.approx(np.sqrt(cost[linear_sum_assignment(cost)].mean()), rel=1e-9)


def test_exact_with_unequal_numbers_splits_cells() -> None:
    """Every cell twice changes nothing."""
    x, y = cells(20, 40)
    assert wasserstein(x, y) == pytest.approx(wasserstein(np.repeat(x, 2, axis=0), y), rel=1e-9)


@pytest.mark.parametrize("shift", [0.3, 2.0])
def test_debiased_sinkhorn_is_near_the_exact_distance(shift: float) -> None:
    x, _ = cells(120, 1)
    y = cells(121, 1)[0][:120] + shift
    found = transport(x, y, "sinkhorn")
    mean_cost = cdist(x, y, "sqeuclidean").mean()
    assert found.converged
    assert found.n == (120, 120)
    assert found.epsilon == pytest.approx(0.05 * mean_cost, rel=1e-6)
    # Debiasing takes away what two samples of one population are apart, hence "at most".
    assert 0.9 * shift * np.sqrt(3) < found.distance < wasserstein(x, y) * 1.001
    assert transport(x, x, "sinkhorn").distance == pytest.approx(0, abs=2e-3)


def test_method_follows_from_the_number_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cells(120, 120)
    monkeypatch.setattr("c2s_jax.metrics.optimal_transport.EXACT_CELLS", 119)
    assert transport(x, y).method == "sinkhorn"
    monkeypatch.setattr("c2s_jax.metrics.optimal_transport.SINKHORN_CELLS", 119)
    with pytest.raises(ValueError, match="random subset of each, or method='sliced'"):
        transport(x, y)


def test_sliced_in_one_dimension_is_exact_and_below_it_in_more() -> None:
    x, y = cells(50, 50)
    line = transport(x[:, :1], y[:, :1], "sliced")
    assert line.distance == pytest.approx(wasserstein(x[:, :1], y[:, :1]), rel=1e-6)
    assert line.distance >= wasserstein_distance(x[:, 0], y[:, 0])
    assert 0 < wasserstein(x, y, "sliced") < wasserstein(x, y)
    assert wasserstein(x, y, "sliced", seed=1) == wasserstein(x, y, "sliced", seed=1)


def test_one_population_at_one_point() -> None:
    point = np.full((4, 2), 7.0)
    assert transport(point, point, "sinkhorn").distance == 0
    assert wasserstein(point, point + np.array([3, 4])) == pytest.approx(5)


def test_bad_arguments_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="cells on both sides, got 0 and 2"):
        wasserstein(np.zeros((0, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="'exact', 'sinkhorn' or 'sliced'"):
        wasserstein(np.zeros((1, 2)), np.zeros((2, 2)), "w1")  # type: ignore[arg-type]
