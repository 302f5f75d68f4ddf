"""Influences of cells on distances against differences of weighted distances, and what intervals made of them hold."""

from collections.abc import Callable

import numpy as np
import ot
import pytest
from numpy.typing import NDArray
from scipy import linalg
from scipy.spatial.distance import cdist

from c2s_jax import metrics

GAMMA = 0.3
Weighted = Callable[[NDArray, NDArray, NDArray, NDArray], float]


def cells(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> NDArray[np.float64]:
    return shift + scale * np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(2, 0.5, d)


def weighted_scfid(x: NDArray, y: NDArray, w: NDArray, v: NDArray) -> float:
    (m, s), (k, t) = (
        (p @ z, np.cov(z, rowvar=False, aweights=p, ddof=0) * len(z) / (len(z) - 1)) for z, p in ((x, w), (y, v))
    )
    root = linalg.sqrtm(s)
    return float(
        ((m - k) ** 2).sum() + np.trace(s + t) - 2 * np.sqrt(np.linalg.eigvals(root @ t @ root).clip(0).real).sum()
    )


def weighted_nuclear(x: NDArray, y: NDArray, w: NDArray, v: NDArray) -> float:
    """scFID of few cells: by singular values of the product of factors."""
    a, b = (np.sqrt(p * len(z) / (len(z) - 1))[:, None] * (z - p @ z) for z, p in ((x, w), (y, v)))
    gap = w @ x - v @ y
    return float(gap @ gap + (a**2).sum() + (b**2).sum() - 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum())


def weighted_mmd(x: NDArray, y: NDArray, w: NDArray, v: NDArray) -> float:
    z, c = np.concatenate([x, y]), np.concatenate([w, -v])
    return float(c @ np.exp(-GAMMA * cdist(z, z, "sqeuclidean")) @ c)


def weighted_transport(x: NDArray, y: NDArray, w: NDArray, v: NDArray) -> float:
    return float(np.sqrt(ot.emd2(w, v, ot.dist(x, y))))


def sinkhorn(x: NDArray, y: NDArray, w: NDArray, v: NDArray) -> float:
    """Debiased, by POT, at the ε of `metrics.transport`."""
    epsilon = metrics.transport(x, y, "sinkhorn").epsilon
    args = dict(reg=epsilon, method="sinkhorn_log", numItermax=2_000, stopThr=1e-9)

    def loss(a: NDArray, b: NDArray, p: NDArray, q: NDArray) -> float:
        cost = ot.dist(a, b)
        plan = ot.sinkhorn(p, q, cost, **args)
        return float((plan * cost).sum() + epsilon * (plan * np.log(plan / np.outer(p, q) + 1e-300)).sum())

    return float(np.sqrt(loss(x, y, w, v) - loss(x, x, w, w) / 2 - loss(y, y, v, v) / 2))


@pytest.mark.parametrize(
    ("influence", "weighted", "n", "d", "tolerance"),
    [
        (metrics.scfid_influence, weighted_scfid, (40, 30), 4, 1e-4),
        (metrics.scfid_influence, weighted_nuclear, (12, 9), 20, 1e-4),
        (metrics.scfid_influence, weighted_nuclear, (40, 9), 20, 1e-4),
        (lambda x, y: metrics.mmd_influence(x, y, GAMMA), weighted_mmd, (40, 30), 4, 1e-4),
        (lambda x, y: metrics.wasserstein_influence(metrics.transport(x, y)), weighted_transport, (23, 30), 4, 1e-3),
        (lambda x, y: metrics.wasserstein_influence(metrics.transport(x, y, "sinkhorn")), sinkhorn, (23, 30), 4, 2e-2),
    ],
    ids=["scfid", "scfid of few cells", "scfid of few on a side", "mmd", "exact transport", "sinkhorn"],
)
def test_is_the_derivative_in_the_weights(influence, weighted: Weighted, n, d: int, tolerance: float) -> None:
    x, y = cells(n[0], d, 0), cells(n[1], d, 1, 0.5, 1.3)
    found = influence(x, y)
    assert found.real.mean() == pytest.approx(0, abs=1e-9)
    assert found.generated.mean() == pytest.approx(0, abs=1e-9)
    rng, even = np.random.default_rng(2), [np.full(k, 1 / k) for k in n]
    for _ in range(3):
        step = [1e-4 * (rng.dirichlet(np.ones(k)) - 1 / k) for k in n]
        up, down = (weighted(x, y, *(w + sign * s for w, s in zip(even, step))) for sign in (1, -1))
        predicted = found.resampled(step[0][None], step[1][None])[0]
        assert predicted == pytest.approx((up - down) / 2, rel=tolerance, abs=tolerance * 1e-4)


def test_the_same_cells_have_no_influence() -> None:
    x = cells(20, 5, 0)
    for found in (
        metrics.scfid_influence(x, x),
        metrics.mmd_influence(x, x, GAMMA),
        metrics.wasserstein_influence(metrics.transport(x, x)),
    ):
        np.testing.assert_allclose(np.concatenate([found.real, found.generated]), 0, atol=1e-9)


def test_sliced_transport_has_none() -> None:
    x = cells(20, 5, 0)
    with pytest.raises(ValueError, match="'sliced' has no dual potentials"):
        metrics.wasserstein_influence(metrics.transport(x, x + 1, "sliced"))


def distances(x: NDArray, y: NDArray) -> dict[str, tuple[float, metrics.Influence]]:
    transport, gamma = metrics.transport(x, y), metrics.median_gamma(x, y)
    return {
        "scfid": (metrics.scfid(x, y), metrics.scfid_influence(x, y)),
        "mmd": (metrics.mmd(x, y, gammas=(gamma,)), metrics.mmd_influence(x, y, gamma)),
        "wasserstein": (transport.distance, metrics.wasserstein_influence(transport)),
    }


@pytest.mark.parametrize(("n", "d"), [(60, 4), (20, 30)])
def test_intervals_hold_the_expected_distance(n: int, d: int) -> None:
    """Of 120 pairs of samples about 95 % of intervals hold the mean distance of such samples, bias by n and all."""
    found = [distances(cells(n, d, 2 * i), cells(n, d, 2 * i + 1, 0.4, 1.2)) for i in range(120)]
    for name in ("scfid", "mmd", "wasserstein"):
        expected, held = np.mean([one[name][0] for one in found]), []
        for i, one in enumerate(found):
            value, influence = one[name]
            drawn = [metrics.cell_weights(np.arange(n) + k, resamples=200, seed=i) for k in (0, 10_000)]
            low, high = metrics.shifted_interval(value, value + influence.resampled(*drawn))
            held.append(low <= expected <= high)
        assert 0.87 <= np.mean(held) <= 0.995, (name, np.mean(held))
