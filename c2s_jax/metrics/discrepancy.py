"""Maximum mean discrepancy between two populations of cells."""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2s_jax.metrics._checks import bucket, embedding_array, embedding_pair

CELLOT_GAMMAS = (2.0, 1.0, 0.5, 0.1, 0.01, 0.005)
"""Kernel widths that CellOT's evaluation averages over (Bunne et al. 2023, Nat. Methods 20:1759)."""


def mmd(
    real: ArrayLike,
    generated: ArrayLike,
    *,
    gammas: Sequence[float] | Literal["median"] = CELLOT_GAMMAS,
    estimator: Literal["biased", "unbiased"] = "biased",
    rows: int = 1024,
) -> float:
    """Squared maximum mean discrepancy with kernels ``exp(-γ |x - y|²)``, averaged over γ.

    ``E k(x, x') + E k(y, y') - 2 E k(x, y)`` (Gretton et al. 2012, JMLR 13:723).

    Parameters
    ----------
    real, generated
        Cells [n, d] and [m, d] in one space.
    gammas
        Kernel widths; ``"median"`` takes the one of `median_gamma`. They are in units of 1 / embedding²: compare
        numbers of one space and one choice only.
    estimator
        ``"biased"`` takes means over all pairs (eq. 5; at least 0; CellOT's), ``"unbiased"`` leaves out each cell
        with itself (eq. 3; may be negative, about 0 for two samples of one population whatever n is).
    rows
        Cells compared at a time: memory is rows × max(n, m) distances.
    """
    left, right = embedding_pair(real, generated)
    least = 2 if estimator == "unbiased" else 1
    if estimator not in ("biased", "unbiased"):
        raise ValueError(f"estimator is 'biased' or 'unbiased', got {estimator!r}")
    if min(len(left), len(right)) < least:
        raise ValueError(f"{estimator} MMD needs at least {least} cells a side, got {len(left)} and {len(right)}")
    widths = np.asarray([median_gamma(left, right)] if isinstance(gammas, str) else gammas, np.float64)
    if not len(widths) or (widths <= 0).any():
        raise ValueError(f"gammas must be positive, got {widths.tolist()}")
    # Distances come from inner products, which lose digits far from the origin.
    centre = left.mean(axis=0, dtype=np.float64)
    sides = [(x - centre).astype(jax.dtypes.canonicalize_dtype(np.float64)) for x in (left, right)]
    means = []
    for a, b in ((0, 0), (1, 1), (0, 1)):
        total = _kernel_sums(sides[a], sides[b], widths, rows, same=a == b)
        n, m = len(sides[a]), len(sides[b])
        within = a == b and estimator == "unbiased"
        means.append((total - n) / (n * (n - 1)) if within else total / (n * m))
    return float(np.mean(means[0] + means[1] - 2 * means[2]))


def median_gamma(real: ArrayLike, generated: ArrayLike | None = None, *, max_cells: int = 2000, seed: int = 0) -> float:
    """``1 / (2 σ²)`` with σ the median distance between different cells of both sides together, or of one.

    Of more than `max_cells` cells a random choice keyed by `seed` is taken.
    """
    sides = (embedding_array(real, "real"),) if generated is None else embedding_pair(real, generated)
    cells = np.concatenate(sides).astype(np.float64)
    if len(cells) > max_cells:
        generator = np.random.Generator(np.random.Philox(key=seed))
        cells = cells[generator.choice(len(cells), max_cells, replace=False)]
    from scipy.spatial.distance import pdist

    median = float(np.median(pdist(cells, "sqeuclidean")))
    if median == 0:
        raise ValueError("most cells are the same, so the median distance is 0; give gammas")
    return 1 / (2 * median)


def _kernel_sums(left: NDArray, right: NDArray, gammas: NDArray, rows: int, *, same: bool) -> NDArray[np.float64]:
    """Sum over all pairs of each kernel, float64 [gammas]."""
    rows = min(bucket(len(left)), rows)
    n_blocks = -(-len(left) // rows)
    padded_left, padded_right = np.zeros((n_blocks * rows, left.shape[1]), left.dtype), _padded(right)
    padded_left[: len(left)] = left
    blocks = padded_left.reshape(n_blocks, rows, -1)
    sums = _block_sums(blocks, len(left), padded_right, len(right), gammas.astype(left.dtype), same)
    return np.asarray(sums, np.float64).sum(axis=0)


def _padded(cells: NDArray) -> NDArray:
    out = np.zeros((bucket(len(cells)), cells.shape[1]), cells.dtype)
    out[: len(cells)] = cells
    return out


@functools.partial(jax.jit, static_argnames="same")
def _block_sums(
    blocks: jax.Array, n_left: jax.Array, right: jax.Array, n_right: jax.Array, gammas: jax.Array, same: bool
) -> jax.Array:
    """Kernel sums [blocks, gammas]. Where both sides are `same`, a cell is at distance 0 from itself, exactly."""
    columns = jnp.arange(len(right))
    right_squares = jnp.sum(right**2, axis=1)

    def of_block(first_and_block: tuple[jax.Array, jax.Array]) -> jax.Array:
        first, block = first_and_block
        place = first + jnp.arange(len(block))
        products = jnp.matmul(block, right.T, precision=jax.lax.Precision.HIGHEST)
        squares = jnp.maximum(jnp.sum(block**2, axis=1)[:, None] + right_squares - 2 * products, 0)
        if same:
            squares = jnp.where(place[:, None] == columns, 0, squares)
        valid = (place < n_left)[:, None] & (columns < n_right)
        return jax.lax.map(lambda gamma: jnp.sum(jnp.exp(-gamma * squares), where=valid), gammas)

    return jax.lax.map(of_block, (jnp.arange(len(blocks)) * blocks.shape[1], blocks))
