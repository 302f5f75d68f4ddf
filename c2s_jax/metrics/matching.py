"""How well two embeddings of the same things find each other."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2s_jax.metrics._checks import embedding_pair, label_array


def foscttm(
    left: ArrayLike,
    right: ArrayLike,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    groups: ArrayLike | None = None,
) -> float:
    """Fraction of samples closer than the true match, mean of both directions: 0 is perfect, 0.5 random.

    Arguments as in `foscttm_by_direction`.
    """
    return float(np.mean(foscttm_by_direction(left, right, metric=metric, groups=groups)))


def foscttm_by_direction(
    left: ArrayLike,
    right: ArrayLike,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    groups: ArrayLike | None = None,
    rows: int = 1024,
) -> tuple[float, float]:
    """FOSCTTM from left to right and from right to left (Singh et al. 2020; as in GLUE, Cao and Gao 2022).

    For each row, the rows of the other side strictly closer than its own partner, over n; then the mean over rows.

    Parameters
    ----------
    left, right
        Embeddings [n, d]; row i of one is the true match of row i of the other.
    metric
        ``"cosine"`` as in the paper on cells and bulk; ``"euclidean"`` gives GLUE's numbers.
    groups
        [n]. Rows of one group share their true match (several cells of one bulk sample, whose row is repeated) and
        are no wrong match of each other.
    rows
        Rows compared at a time: memory is rows × n.

    Raises
    ------
    ValueError
        If numbers of rows differ, or a row is 0, which has no cosine.
    """
    a, b = embedding_pair(left, right)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"left has {len(a)} rows and right {len(b)}; each row needs its true match on the other side")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric is 'cosine' or 'euclidean', got {metric!r}")
    sides = [x.astype(np.float64) for x in (a, b)]
    if metric == "cosine":
        norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in sides]
        for name, norm in zip(("left", "right"), norms):
            if not norm.all():
                raise ValueError(f"{name} row {int(np.argmin(norm))} is 0 and has no direction; leave it out")
        sides = [x / norm for x, norm in zip(sides, norms)]
    else:
        centre = sides[1].mean(axis=0)
        sides = [x - centre for x in sides]
    own = (
        np.arange(len(a))
        if groups is None
        else np.unique(label_array(groups, len(a), "groups"), return_inverse=True)[1]
    )
    return _closer(sides[0], sides[1], own, rows), _closer(sides[1], sides[0], own, rows)


def _closer(queries: NDArray, others: NDArray, groups: NDArray, rows: int) -> float:
    n = len(queries)
    rows = min(rows, n)
    padded = np.zeros((-(-n // rows) * rows, queries.shape[1]), jax.dtypes.canonicalize_dtype(np.float64))
    padded[:n] = queries
    place = np.minimum(np.arange(len(padded)), n - 1)
    shape = (-1, rows)
    counts = _counts(
        padded.reshape(*shape, queries.shape[1]), place.reshape(shape), others.astype(padded.dtype), groups
    )
    return float(np.asarray(counts).ravel()[:n].mean() / n)


@jax.jit
def _counts(blocks: jax.Array, places: jax.Array, others: jax.Array, groups: jax.Array) -> jax.Array:
    half_squares = jnp.sum(others**2, axis=1) / 2

    def of_block(block_and_place: tuple[jax.Array, jax.Array]) -> jax.Array:
        block, place = block_and_place
        # (|q|² - |q - o|²) / 2; cosine's rows have length 1, so it orders them as their cosines do.
        near = jnp.matmul(block, others.T, precision=jax.lax.Precision.HIGHEST) - half_squares
        true = jnp.take_along_axis(near, place[:, None], axis=1)
        wrong = groups[place][:, None] != groups
        return jnp.sum((near > true) & wrong, axis=1)

    return jax.lax.map(of_block, (blocks, places))
