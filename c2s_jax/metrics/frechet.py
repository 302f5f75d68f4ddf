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

from c2s_jax.metrics._checks import bucket, embedding_pair, label_array
from c2s_jax.metrics._trace_root import distance_by_eigenvalues

_CANCELS = 2e5
"""Units of rounding of the traces below which their difference has lost too many digits."""
_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


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
    Where the two populations nearly agree it is computed as that residual, which does not cancel; no square root is
    taken of a rounding error, so that cells may be fewer than dimensions.

    Parameters
    ----------
    real, generated
        Embeddings [n, d] and [m, d], n and m at least 2; for a subset of genes, expression in their columns.
        More cells than fit into memory go through `Moments`.

    Returns
    -------
    float
        In squared units of the embedding. The estimate grows as n shrinks: compare equal n.

    Notes
    -----
    On an accelerator in float32 (within 2e-5 of float64, relative), in float64 under ``jax.enable_x64``. Where JAX runs
    on the CPU, in float64 by LAPACK's eigenvalues wherever these are exact to 1e-7, and else as on an accelerator.
    """
    left, right = embedding_pair(real, generated)
    for name, cells in (("real", left), ("generated", right)):
        if len(cells) < 2:
            raise ValueError(f"scFID needs at least 2 {name} cells for a covariance, got {len(cells)}")
    if jax.default_backend() == "cpu" and min(len(left), len(right)) > left.shape[1]:
        gap = left.mean(axis=0, dtype=np.float64) - right.mean(axis=0, dtype=np.float64)
        covariances = (np.atleast_2d(np.cov(cells, rowvar=False, dtype=np.float64)) for cells in (left, right))
        if (distance := distance_by_eigenvalues(gap, *covariances)) is not None:
            return distance
    # Language models' embeddings often sit far from the origin: the common offset would eat float32's digits.
    offset = left.mean(axis=0, dtype=np.float64)
    rows = bucket(max(len(left), len(right)))
    return float(_frechet_of_cells(_padded(left - offset, rows), len(left), _padded(right - offset, rows), len(right)))


@jax.jit
def scfid_on_device(real: jax.Array, generated: jax.Array) -> jax.Array:
    """`scfid` as a JAX function of [n, d] and [m, d], for use inside jit, vmap and grad (a loss, say).

    The gradient is exact: that of the residual at its best rotation, with no derivative of a decomposition, hence
    finite for fewer cells than dimensions too. It has none where the populations share all moments.
    """
    real_mean, left = _differentiable_factor(real)
    generated_mean, right = _differentiable_factor(generated)
    rows = max(len(left), len(right))
    left, right = (jnp.pad(x, ((0, rows - len(x)), (0, 0))) for x in (left, right))
    return jnp.sum((real_mean - generated_mean) ** 2) + _residual(left, right)


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


def _mean_and_factor(cells: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [d] of the first n rows, and R with R^T R their covariance (ddof 1)."""
    valid = (jnp.arange(cells.shape[0]) < n)[:, None]
    mean = jnp.sum(cells, axis=0, where=valid) / n
    factor = jnp.where(valid, cells - mean, 0) / jnp.sqrt(n - 1).astype(cells.dtype)
    return mean, (_r_of_qr(factor) if factor.shape[0] > factor.shape[1] else factor)


def _differentiable_factor(cells: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = cells.mean(axis=0)
    factor = (cells - mean) / np.sqrt(len(cells) - 1)
    if factor.shape[0] > factor.shape[1]:
        # Q is held fixed: it spans the cells, so a change across it alters R^T R in the second order alone.
        factor = _product(jnp.linalg.qr(jax.lax.stop_gradient(factor))[0].T, factor)
    return mean, factor


def _r_of_qr(tall: jax.Array) -> jax.Array:
    """R of a QR decomposition, by Cholesky twice (Yamamoto et al. 2015) unless the columns are too dependent for it.

    Products of matrices and little else: several times as fast as Householder's reflections, and as accurate
    where the first pass leaves nearly orthogonal columns, which is looked at.
    """
    first = jnp.linalg.cholesky(_product(tall.T, tall)).T
    identity = jnp.eye(tall.shape[1], dtype=tall.dtype)
    columns = _product(tall, jax.lax.linalg.triangular_solve(first, identity, left_side=True))
    gram = _product(columns.T, columns)
    # False for NaN, which a failed decomposition leaves; XLA's maximum may pass over them.
    good = jnp.all(jnp.abs(gram - identity) < 0.01)
    again = jnp.where(good, gram, identity)
    return jax.lax.cond(
        good,
        lambda: _product(jnp.linalg.cholesky(again).T, first),
        lambda: jnp.linalg.qr(tall, mode="r"),
    )


def _bures(left: jax.Array, right: jax.Array) -> jax.Array:
    """``tr(S_l + S_r - 2 (S_l S_r)^(1/2))`` with ``S = R^T R``, for R of one square shape or n × d both.

    By the nuclear norm of ``R_l R_r^T``, or where the difference would cancel by the residual.
    """
    total = jnp.sum(left**2) + jnp.sum(right**2)
    between = _product(left, right.T)
    plain = total - 2 * jnp.sum(jnp.linalg.svd(between, compute_uv=False))
    return jax.lax.cond(
        plain > _CANCELS * jnp.finfo(total.dtype).eps * total, lambda: plain, lambda: _residual(left, right)
    )


def _residual(left: jax.Array, right: jax.Array) -> jax.Array:
    """Least ``|R_l - Q R_r|^2`` over orthogonal Q; its gradient is that at the best Q (the envelope theorem)."""
    u, _, vt = jnp.linalg.svd(jax.lax.stop_gradient(_product(left, right.T)))
    return jnp.sum((left - _product(_product(u, vt), right)) ** 2)
