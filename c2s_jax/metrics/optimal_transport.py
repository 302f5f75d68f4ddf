"""Wasserstein distance between two populations of cells, by solvers that others maintain."""

import functools
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2s_jax.metrics._checks import embedding_pair

Method = Literal["exact", "sinkhorn", "sliced"]
EXACT_CELLS = 2000
"""Cells on the larger side up to which the distance is solved exactly unless a method is given."""
SINKHORN_CELLS = 20_000
"""Most cells a side for Sinkhorn. OTT-JAX can do without the matrix of distances, but not with today's JAX."""


@dataclass(frozen=True)
class Transport:
    """A Wasserstein distance and how it was had.

    Attributes
    ----------
    distance
        W2, in units of the embedding.
    method
        ``"exact"``, ``"sinkhorn"`` or ``"sliced"``: numbers of different methods do not compare.
    n
        (real cells, generated cells).
    epsilon
        Strength of the entropy in squared units of the embedding (Sinkhorn only).
    converged
        Whether the solver met its threshold.
    potentials
        Derivative of the squared distance in the weight of each cell, float64 [n] and [m], up to a constant a side;
        None where sliced.
    """

    distance: float
    method: Method
    n: tuple[int, int]
    epsilon: float | None = None
    converged: bool = True
    potentials: tuple[NDArray[np.float64], NDArray[np.float64]] | None = field(default=None, repr=False, compare=False)


def wasserstein(real: ArrayLike, generated: ArrayLike, method: Method | None = None, **settings: Any) -> float:
    """The distance of `transport`, which tells method and ε too."""
    return transport(real, generated, method, **settings).distance


def transport(
    real: ArrayLike,
    generated: ArrayLike,
    method: Method | None = None,
    *,
    relative_epsilon: float = 0.05,
    projections: int = 200,
    seed: int = 0,
    max_iterations: int = 2000,
) -> Transport:
    """2-Wasserstein distance between two samples of cells, all cells of a side of equal weight.

    ``W2 = (min_P Σ P_ij |x_i - y_j|²)^(1/2)`` over couplings P (Peyré and Cuturi 2019, Found. Trends Mach. Learn.
    11:355, eq. 2.11).

    Parameters
    ----------
    real, generated
        Cells [n, d] and [m, d] in one space.
    method
        ``"exact"``: network simplex of POT, in float64, memory n × m. ``"sinkhorn"``: debiased Sinkhorn divergence of
        OTT-JAX (Feydy et al. 2019), memory n × m, up to 20,000 cells a side. ``"sliced"``: mean over `projections`
        random lines keyed by `seed`, of POT; never above the exact distance, and for any n. By default exact up to
        2,000 cells a side, Sinkhorn beyond.
    relative_epsilon
        ε of Sinkhorn over the mean squared distance between a real and a generated cell.
    max_iterations
        Of Sinkhorn; one that stops there says so in `converged`.

    Notes
    -----
    The distance between two samples of one population is not 0 and falls with n, slowly in many dimensions: compare
    equal n, and with the distance between two real samples.
    """
    left, right = (x.astype(np.float64) for x in embedding_pair(real, generated))
    n = len(left), len(right)
    if min(n) < 1:
        raise ValueError(f"a Wasserstein distance needs cells on both sides, got {n[0]} and {n[1]}")
    method = method or ("exact" if max(n) <= EXACT_CELLS else "sinkhorn")
    if method == "exact":
        distance, potentials = _exact(left, right)
        return Transport(distance, method, n, potentials=potentials)
    if method == "sliced":
        return Transport(_sliced(left, right, projections, seed), method, n)
    if method != "sinkhorn":
        raise ValueError(f"method is 'exact', 'sinkhorn' or 'sliced', got {method!r}")
    if max(n) > SINKHORN_CELLS:
        raise ValueError(
            f"Sinkhorn holds all distances of {n[0]} × {n[1]} cells, up to {SINKHORN_CELLS} a side; "
            "measure a random subset of each, or method='sliced'"
        )
    epsilon = relative_epsilon * _mean_cost(left, right)
    if epsilon == 0:
        return Transport(0.0, method, n, 0.0, potentials=(np.zeros(n[0]), np.zeros(n[1])))
    centre, scale = left.mean(axis=0), np.sqrt(epsilon / relative_epsilon)
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    sides = [((x - centre) / scale).astype(dtype) for x in (left, right)]
    divergence, converged, dual = _sinkhorn(*sides, epsilon=relative_epsilon, max_iterations=max_iterations)
    distance = float(scale * np.sqrt(max(float(divergence), 0.0)))
    in_left, in_right = (scale**2 * np.asarray(x, np.float64) for x in dual)
    return Transport(distance, method, n, float(epsilon), bool(converged), (in_left, in_right))


def _exact(left: NDArray, right: NDArray) -> tuple[float, tuple[NDArray, NDArray]]:
    import ot

    cost = ot.dist(left, right, metric="sqeuclidean")
    value, log = ot.emd2([], [], cost, numItermax=10_000_000, log=True)
    if log["warning"]:
        raise ValueError(f"POT found no optimal coupling: {log['warning']}")
    return float(np.sqrt(max(float(value), 0.0))), (log["u"], log["v"])


def _sliced(left: NDArray, right: NDArray, projections: int, seed: int) -> float:
    import ot

    return float(ot.sliced_wasserstein_distance(left, right, n_projections=projections, seed=seed, p=2))


def _mean_cost(left: NDArray, right: NDArray) -> float:
    """Mean squared distance between a cell of either side."""
    return float(left.var(axis=0).sum() + right.var(axis=0).sum() + ((left.mean(0) - right.mean(0)) ** 2).sum())


@functools.partial(jax.jit, static_argnames=("epsilon", "max_iterations"))
def _sinkhorn(
    left: jax.Array, right: jax.Array, *, epsilon: float, max_iterations: int
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """Divergence, whether it converged, and its derivative in the weights of either side."""
    from ott.geometry import pointcloud
    from ott.tools import sinkhorn_divergence

    divergence, out = sinkhorn_divergence.sinkhorn_divergence(
        pointcloud.PointCloud,
        left,
        right,
        epsilon=epsilon,
        solve_kwargs={"max_iterations": max_iterations},
    )
    assert out.potentials is not None  # of a solver that is not of low rank
    (f, g), own_left, own_right = out.potentials
    dual = f - (own_left[0] + own_left[1]) / 2, g - (own_right[0] + own_right[1]) / 2
    return divergence, jax.numpy.all(jax.numpy.asarray(out.converged)), dual
