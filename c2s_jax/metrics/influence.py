"""How much each cell pulls at a distance between two populations, from which intervals follow without resampling it.

A distance of cells with weights w and v (each sums to 1) changes by ``Σ φ_i dw_i + Σ ψ_j dv_j`` in the first order.
The same sums with weights drawn anew are its resampled values (the infinitesimal jackknife: Jaeckel 1972; Efron and
Tibshirani 1993, ch. 21): one product of matrices for all of them, and free of the bias of resampling, which repeats
cells and so moves distances up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from c2s_jax.metrics._checks import embedding_pair
from c2s_jax.metrics.optimal_transport import Transport

_BLOCK = 1024  # cells whose distances to all others are held at once


@dataclass(frozen=True)
class Influence:
    """Derivative of a distance in the weight of each cell, float64 [n] and [m], each of mean 0."""

    real: NDArray[np.float64]
    generated: NDArray[np.float64]

    @staticmethod
    def of(real: NDArray, generated: NDArray) -> "Influence":
        """Of derivatives that are known up to a constant a side."""
        return Influence(real - real.mean(), generated - generated.mean())

    def resampled(self, real_weights: NDArray, generated_weights: NDArray) -> NDArray[np.float64]:
        """Change of the distance [R] under weights [R, n] and [R, m] whose rows sum to 1."""
        return real_weights @ self.real + generated_weights @ self.generated


def scfid_influence(real: ArrayLike, generated: ArrayLike) -> Influence:
    """Of `scfid`, whose trace term changes by its best rotation held fixed; cells may be fewer than dimensions."""
    left, right = (cells.astype(np.float64) for cells in embedding_pair(real, generated))
    gap = left.mean(axis=0) - right.mean(axis=0)
    sides = [cells - cells.mean(axis=0) for cells in (left, right)]
    factors = [np.linalg.qr(cells) if len(cells) > cells.shape[1] else (None, cells) for cells in sides]
    (q_left, r_left), (q_right, r_right) = factors
    u, s, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    kept = s > s[0] * max(len(r_left), len(r_right)) * np.finfo(np.float64).eps
    turned = u[:, kept] @ (vt[kept] @ r_right), vt[kept].T @ (u[:, kept].T @ r_left)
    found = []
    for cells, q, other, sign in zip(sides, (q_left, q_right), turned, (1, -1)):
        n, m = len(cells), len(sides[0]) + len(sides[1]) - len(cells)
        partner = other if q is None else q @ other
        # Root of weights: a cell's row in the factor is (its distance from the mean) √(w n / (n - 1)).
        across = n * np.einsum("nd,nd->n", partner, cells) / np.sqrt((n - 1.0) * (m - 1.0))
        own = n / (n - 1.0) * np.einsum("nd,nd->n", cells, cells)
        found.append(2 * sign * cells @ gap + own - across)
    return Influence.of(*found)


def mmd_influence(real: ArrayLike, generated: ArrayLike, gamma: float) -> Influence:
    """Of `mmd` with one kernel, biased estimator: twice the witness function."""
    left, right = (cells.astype(np.float64) for cells in embedding_pair(real, generated))
    across, back = _mean_kernel(left, right, gamma), _mean_kernel(right, left, gamma)
    return Influence.of(2 * (_mean_kernel(left, left, gamma) - across), 2 * (_mean_kernel(right, right, gamma) - back))


def wasserstein_influence(found: Transport) -> Influence:
    """Of the distance of `transport`, exact or Sinkhorn's: its dual potentials over twice the distance.

    They are what its central limit theorem rests on (del Barrio and Loubes 2019, Ann. Probab. 47:926). Of a distance of
    0, which has no derivative: zeros.
    """
    if found.potentials is None:
        raise ValueError(f"method {found.method!r} has no dual potentials; take 'exact' or 'sinkhorn'")
    scale = 0.5 / found.distance if found.distance > 0 else 0.0
    return Influence.of(*(scale * potential for potential in found.potentials))


def _mean_kernel(cells: NDArray, others: NDArray, gamma: float) -> NDArray[np.float64]:
    """Mean kernel of each cell with the others, [n]."""
    blocks = range(0, len(cells), _BLOCK)
    return np.concatenate(
        [np.exp(-gamma * cdist(cells[i : i + _BLOCK], others, "sqeuclidean")).mean(axis=1) for i in blocks]
    )
