"""How well reconstructed expression explains the real one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse


def reconstruction_r2(real: Any, reconstructed: Any, in_range: Any = None) -> float:
    """Coefficient of determination ``1 - SS_res / SS_tot`` of reconstructed against real expression.

    Parameters
    ----------
    real, reconstructed
        Log expression of the same cells and genes: arrays of one shape, or two sparse matrices (absent
        entries count as 0).
    in_range
        Boolean, the entries to measure on, of the same shape (dense only), for example those with
        ``log10(1 + rank) < 3``. All entries by default.

    Returns
    -------
    float
        1 is perfect, 0 no better than the mean of `real`, negative worse.
    """
    if np.shape(real) != np.shape(reconstructed):
        raise ValueError(f"real is {np.shape(real)} and reconstructed {np.shape(reconstructed)}: not the same cells")
    if sparse.issparse(real) or sparse.issparse(reconstructed):
        if in_range is not None:
            raise ValueError("in_range goes with dense arrays; pass the values in range as two vectors")
        return _sparse_r2(sparse.csr_matrix(real), sparse.csr_matrix(reconstructed))
    left, right = np.asarray(real), np.asarray(reconstructed)
    mask = np.ones(left.shape, bool) if in_range is None else np.asarray(in_range)
    if mask.shape != left.shape or mask.dtype != bool:
        raise ValueError(f"in_range must be boolean {left.shape}, got {mask.dtype} {mask.shape}")
    residual, total = map(float, _sums(left, right, mask))
    return _r2(residual, total)


@jax.jit
def _sums(real: jax.Array, reconstructed: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = jnp.mean(real, where=mask)
    return (
        jnp.sum((real - reconstructed) ** 2, where=mask),
        jnp.sum((real - mean) ** 2, where=mask),
    )


def _sparse_r2(real: sparse.csr_matrix, reconstructed: sparse.csr_matrix) -> float:
    left = real.astype(np.float64)
    difference = left - reconstructed.astype(np.float64)
    size = np.prod(left.shape, dtype=np.float64)
    total = (left.data**2).sum() - left.sum() ** 2 / size
    return _r2(float((difference.data**2).sum()), float(total))


def _r2(residual: float, total: float) -> float:
    if not np.isfinite(residual) or not np.isfinite(total):
        raise ValueError("R² has no value: there are no entries to measure, or some are NaN or infinite")
    if total <= 0:
        raise ValueError("R² has no value: the real expression is constant over the entries measured")
    return 1.0 - residual / total
