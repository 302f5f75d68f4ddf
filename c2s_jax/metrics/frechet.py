"""Fréchet distance between two populations of cells in an embedding space (scFID)."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from c2s_jax.metrics._checks import embedding_pair, label_array

_SMALLEST_BUCKET = 64


@dataclass(frozen=True)
class ScFID:
    """scFID by condition.

    Attributes
    ----------
    mean
        Unweighted mean over the conditions measured.
    per_condition
        The distance of each condition.
    n
        (real cells, generated cells) that entered each condition's distance.
    skipped
        (real cells, generated cells) of conditions with too few cells on one side: they are in no mean.
    """

    mean: float
    per_condition: Mapping[str, float]
    n: Mapping[str, tuple[int, int]]
    skipped: Mapping[str, tuple[int, int]]


def scfid(real: ArrayLike, generated: ArrayLike) -> float:
    """Fréchet distance between Gaussians fitted to real and generated cells.

    ``|m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2))`` with covariances of ddof 1 (Dowson and Landau 1982,
    J. Multivariate Anal. 12:450, eq. 4; named FID by Heusel et al. 2017, eq. 6).

    With ``S = A^T A`` (``A`` the centred cells over ``sqrt(n - 1)``), ``tr (S_r S_g)^(1/2)`` is the nuclear
    norm of ``A_r A_g^T``, that is the sum of the square roots of the eigenvalues of
    ``S_r^(1/2) S_g S_r^(1/2)``, and the whole trace term is the residual of an orthogonal Procrustes problem.
    It is computed as that residual: never negative, no square root of a rounding error where cells are fewer
    than dimensions, no cancellation where the two populations nearly agree.

    Parameters
    ----------
    real, generated
        Embeddings [n, d] and [m, d], n and m at least 2. Computed in float32, in float64 under
        ``jax.enable_x64``.

    Returns
    -------
    float
        In squared units of the embedding. The estimate grows as n shrinks: compare equal n.
    """
    left, right = embedding_pair(real, generated)
    for name, cells in (("real", left), ("generated", right)):
        if len(cells) < 2:
            raise ValueError(f"scFID needs at least 2 {name} cells for a covariance, got {len(cells)}")
    # Language models' embeddings often sit far from the origin: the common offset would eat float32's digits.
    offset = left.mean(axis=0, dtype=np.float64)
    rows = _bucket(max(len(left), len(right)))
    return float(_frechet_of_cells(_padded(left - offset, rows), len(left), _padded(right - offset, rows), len(right)))


def scfid_by_condition(
    real: ArrayLike,
    generated: ArrayLike,
    real_labels: ArrayLike,
    generated_labels: ArrayLike,
    *,
    min_cells: int = 2,
    equal_n: bool = False,
    seed: int = 0,
) -> ScFID:
    """scFID within each condition, and its unweighted mean over conditions.

    Parameters
    ----------
    real, generated
        Embeddings [n, d] and [m, d].
    real_labels, generated_labels
        Condition of each cell, [n] and [m] (cell type, or type × perturbation × exposure in one string).
    min_cells
        Conditions with fewer cells on either side are skipped and listed, at least 2.
    equal_n
        Subsample the larger side of each condition to the smaller one, by a random choice keyed by
        (`seed`, condition): the bias of the estimate then is the same on both sides.

    Returns
    -------
    ScFID

    Raises
    ------
    ValueError
        When no condition has `min_cells` cells on both sides.
    """
    if min_cells < 2:
        raise ValueError(f"min_cells must be at least 2 for a covariance, got {min_cells}")
    left, right = embedding_pair(real, generated)
    left_labels = label_array(real_labels, len(left), "real_labels")
    right_labels = label_array(generated_labels, len(right), "generated_labels")
    distances: dict[str, float] = {}
    counts: dict[str, tuple[int, int]] = {}
    skipped: dict[str, tuple[int, int]] = {}
    for condition in np.union1d(left_labels, right_labels).tolist():
        rows_left = np.flatnonzero(left_labels == condition)
        rows_right = np.flatnonzero(right_labels == condition)
        if min(len(rows_left), len(rows_right)) < min_cells:
            skipped[condition] = (len(rows_left), len(rows_right))
            continue
        if equal_n:
            size = min(len(rows_left), len(rows_right))
            rows_left = _subsample(rows_left, size, seed, condition, "real")
            rows_right = _subsample(rows_right, size, seed, condition, "generated")
        counts[condition] = (len(rows_left), len(rows_right))
        distances[condition] = scfid(left[rows_left], right[rows_right])
    if not distances:
        raise ValueError(
            f"no condition has at least {min_cells} real and {min_cells} generated cells; "
            f"(real, generated) counts are {skipped}: check that both sides use the same labels"
        )
    return ScFID(float(np.mean(list(distances.values()))), distances, counts, skipped)


def frechet_distance(
    real_mean: ArrayLike,
    real_covariance: ArrayLike,
    generated_mean: ArrayLike,
    generated_covariance: ArrayLike,
) -> float:
    """Fréchet distance between two Gaussians given by their moments (as `scfid`, for streamed cells).

    Parameters
    ----------
    real_mean, generated_mean
        [d].
    real_covariance, generated_covariance
        [d, d], symmetric and positive semidefinite, of any rank.

    Notes
    -----
    A covariance squares the condition of the cells: eigenvalues below ``d · eps`` times the largest are
    rounding error and are set to 0, so each may cost ``sqrt(d · eps)`` of the largest standard deviation.
    """
    means = [np.asarray(m) for m in (real_mean, generated_mean)]
    covariances = [np.asarray(c) for c in (real_covariance, generated_covariance)]
    size = means[0].size
    if any(m.shape != (size,) for m in means) or any(c.shape != (size, size) for c in covariances):
        raise ValueError(
            f"moments of one space are [d] and [d, d]; got means {[m.shape for m in means]} "
            f"and covariances {[c.shape for c in covariances]}"
        )
    if not all(np.isfinite(x).all() for x in (*means, *covariances)):
        raise ValueError("the moments hold NaN or infinity")
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    difference = np.subtract(*means, dtype=np.float64).astype(dtype)
    return float(_frechet_of_moments(difference, *(c.astype(dtype) for c in covariances)))


def _bucket(n: int) -> int:
    """Rows to pad to: powers of two, so that conditions of many sizes share a few compiled programs."""
    return max(_SMALLEST_BUCKET, 1 << (n - 1).bit_length())


def _padded(cells: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    out = np.zeros((rows, cells.shape[1]), jax.dtypes.canonicalize_dtype(np.float64))
    out[: len(cells)] = cells
    return out


def _subsample(rows: np.ndarray[Any, Any], size: int, seed: int, condition: str, side: str) -> np.ndarray[Any, Any]:
    digest = hashlib.sha256(f"{seed}\0{side}\0{condition}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return np.sort(generator.choice(rows, size, replace=False))


@jax.jit
def _frechet_of_cells(real: jax.Array, n_real: jax.Array, generated: jax.Array, n_generated: jax.Array) -> jax.Array:
    real_mean, real_factor = _mean_and_factor(real, n_real)
    generated_mean, generated_factor = _mean_and_factor(generated, n_generated)
    return jnp.sum((real_mean - generated_mean) ** 2) + _bures(real_factor, generated_factor)


@jax.jit
def _frechet_of_moments(difference: jax.Array, real: jax.Array, generated: jax.Array) -> jax.Array:
    return jnp.sum(difference**2) + _bures(_covariance_factor(real), _covariance_factor(generated))


def _mean_and_factor(cells: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [d] of the first n rows, and R with R^T R their covariance (ddof 1)."""
    valid = (jnp.arange(cells.shape[0]) < n)[:, None]
    mean = jnp.sum(cells, axis=0, where=valid) / n
    factor = jnp.where(valid, cells - mean, 0) / jnp.sqrt(n - 1).astype(cells.dtype)
    if factor.shape[0] > factor.shape[1]:
        factor = jnp.linalg.qr(factor, mode="r")
    return mean, factor


def _covariance_factor(covariance: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh((covariance + covariance.T) / 2)
    floor = values[-1] * values.size * jnp.finfo(values.dtype).eps
    return jnp.sqrt(jnp.where(values > floor, values, 0))[:, None] * vectors.T


def _bures(left: jax.Array, right: jax.Array) -> jax.Array:
    """``tr(S_l + S_r - 2 (S_l S_r)^(1/2))`` with ``S = R^T R``: least ``|R_l - Q R_r|^2``, Q orthogonal."""
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    u, _, vt = jnp.linalg.svd(product(left, right.T))
    return jnp.sum((left - product(product(u, vt), right)) ** 2)
