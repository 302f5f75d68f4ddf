"""Mean and covariance of any number of cells in one pass, and the Fréchet distance between them."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import ArrayLike, NDArray

from c2s_jax.metrics._checks import bucket, embedding_array
from c2s_jax.metrics._trace_root import distance_by_eigenvalues


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of cells, which merge: the cells themselves need not be kept.

    Attributes
    ----------
    n
        Cells seen.
    mean
        float64 [d].
    scatter
        Sum of outer products about the mean, float64 [d, d].
    """

    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @staticmethod
    def of(cells: ArrayLike | jax.Array) -> "Moments":
        """Moments of one batch of cells [n, d].

        A `jax.Array` stays on its devices, sharded over cells as it is. A batch is summed about its own mean in
        float32 (float64 under ``jax.enable_x64``); batches are merged in float64.
        """
        padded: Any
        if isinstance(cells, jax.Array):
            if cells.ndim != 2 or not len(cells):
                raise ValueError(f"cells must be [cells, dimensions] and some, got shape {cells.shape}")
            n, padded = len(cells), cells
        else:
            array = embedding_array(cells, "cells")
            n = len(array)
            if not n:
                raise ValueError("moments need at least one cell")
            padded = np.zeros((bucket(n), array.shape[1]), jax.dtypes.canonicalize_dtype(array.dtype))
            padded[:n] = array
        rough, rest, scatter = (np.asarray(x, np.float64) for x in _batch_moments(padded, n))
        if not np.isfinite(scatter).all():
            raise ValueError("the cells hold NaN or infinity, or values too large to square; mend the embedding")
        return Moments(n, rough + rest, scatter)

    @staticmethod
    def of_batches(batches: Iterable[ArrayLike | jax.Array]) -> "Moments":
        """Moments of all cells of some batches, each read once and dropped."""
        parts = map(Moments.of, batches)
        first = next(parts, None)
        if first is None:
            raise ValueError("there is no batch of cells")
        return functools.reduce(Moments.merge, parts, first)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both together (Chan, Golub and LeVeque 1983, Am. Stat. 37:242, eq. 2.1)."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"moments of {self.mean.size} and {other.mean.size} dimensions do not merge; use one encoder"
            )
        n = self.n + other.n
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.n * other.n / n)
        return Moments(n, self.mean + step * (other.n / n), scatter)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance [d, d] with ddof 1."""
        if self.n < 2:
            raise ValueError("a covariance needs at least 2 cells, got 1")
        return self.scatter / (self.n - 1)


def scfid_of_moments(real: Moments, generated: Moments) -> float:
    """`scfid` of streamed cells."""
    return frechet_distance(real.mean, real.covariance, generated.mean, generated.covariance)


def frechet_distance(
    real_mean: ArrayLike,
    real_covariance: ArrayLike,
    generated_mean: ArrayLike,
    generated_covariance: ArrayLike,
) -> float:
    """Fréchet distance between two Gaussians given by their moments, in float64 on the host (formula: `scfid`).

    Parameters
    ----------
    real_mean, generated_mean
        [d].
    real_covariance, generated_covariance
        [d, d], symmetric and positive semidefinite, of any rank.

    Notes
    -----
    Where that is exact to 1e-7, by eigenvalues alone, in an eighth of the time of ``scipy.linalg.sqrtm``. Elsewhere: a
    covariance squares the condition of the cells; eigenvalues below ``d · eps`` times the largest are
    rounding error and are set to 0, so each may cost ``sqrt(d · eps)`` of the largest standard deviation.
    """
    means = [np.asarray(m, np.float64) for m in (real_mean, generated_mean)]
    covariances = [np.asarray(c, np.float64) for c in (real_covariance, generated_covariance)]
    size = means[0].size
    if any(m.shape != (size,) for m in means) or any(c.shape != (size, size) for c in covariances):
        raise ValueError(
            f"moments of one space are [d] and [d, d]; got means {[m.shape for m in means]} "
            f"and covariances {[c.shape for c in covariances]}"
        )
    if not all(np.isfinite(x).all() for x in (*means, *covariances)):
        raise ValueError("the moments hold NaN or infinity")
    if (distance := distance_by_eigenvalues(means[0] - means[1], *covariances)) is not None:
        return distance
    left, right = map(_factor, covariances)
    u, _, vt = np.linalg.svd(left @ right.T)
    return float(np.sum((means[0] - means[1]) ** 2) + np.sum((left - u @ vt @ right) ** 2))


@jax.jit
def _batch_moments(cells: jax.Array, n: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean of the first n cells in two parts, rough and what it lacks, and their scatter about it."""
    cells = cells.astype(jnp.promote_types(cells.dtype, jnp.float32))
    valid = (jnp.arange(cells.shape[0]) < n)[:, None]
    rough = jnp.sum(cells, axis=0, where=valid) / n
    centred = jnp.where(valid, cells - rough, 0)
    rest = centred.sum(axis=0) / n
    centred = jnp.where(valid, centred - rest, 0)
    mesh = jax.typeof(centred).sharding.mesh
    explicit = not mesh.empty and mesh.are_all_axes_explicit
    whole = NamedSharding(mesh, PartitionSpec(None, None)) if explicit else None
    return rough, rest, jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST, out_sharding=whole)


def _factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """R with R^T R the covariance."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    floor = values[-1] * values.size * np.finfo(np.float64).eps
    return np.sqrt(np.where(values > floor, values, 0))[:, None] * vectors.T
