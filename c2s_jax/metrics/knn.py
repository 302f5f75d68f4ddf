"""Nearest real neighbours of generated cells."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from c2s_jax.metrics._checks import embedding_pair, label_array


def knn_accuracy(
    real: ArrayLike, real_labels: ArrayLike, generated: ArrayLike, generated_labels: ArrayLike, k: int = 5
) -> float:
    """Share of generated cells whose k nearest real cells vote for the label they were generated for.

    Parameters
    ----------
    real, generated
        Cells [n, d] and [m, d] in one space (Euclidean distance).
    real_labels, generated_labels
        [n] and [m]; a generated cell's label is the condition it was asked for.
    k
        Neighbours; publish it with the score.
    """
    wanted = label_array(generated_labels, len(np.asarray(generated)), "generated_labels")
    return float(np.mean(knn_predict(real, real_labels, generated, k) == wanted))


def knn_predict(
    real: ArrayLike, real_labels: ArrayLike, generated: ArrayLike, k: int = 5, *, rows: int = 1024
) -> np.ndarray[Any, Any]:
    """Label [m] of each generated cell by uniform vote of its k nearest real cells.

    A tied vote goes to the label first in alphabetical order, as in scikit-learn's ``KNeighborsClassifier``.
    `rows` generated cells are compared at a time, so memory is rows × n distances.
    """
    left, right = embedding_pair(real, generated)
    names, labels = np.unique(label_array(real_labels, len(left), "real_labels"), return_inverse=True)
    if not 1 <= k <= len(left):
        raise ValueError(f"k must be between 1 and the {len(left)} real cells, got {k}")
    if len(right) == 0:
        raise ValueError("there are no generated cells to classify")
    centre = left.mean(axis=0, dtype=np.float64)
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    reference, query = (left - centre).astype(dtype), (right - centre).astype(dtype)
    rows = min(rows, len(query))
    query = np.concatenate([query, np.zeros((-len(query) % rows, query.shape[1]), dtype)])
    votes = _votes(reference, labels, query.reshape(-1, rows, query.shape[1]), k, len(names))
    return names[np.asarray(votes).ravel()[: len(right)]]


@functools.partial(jax.jit, static_argnums=(3, 4))
def _votes(real: jax.Array, labels: jax.Array, blocks: jax.Array, k: int, n_labels: int) -> jax.Array:
    squares = jnp.sum(real**2, axis=1)

    def block_votes(block: jax.Array) -> jax.Array:
        # |q - r|^2 up to |q|^2, which is the same for all r
        distance = squares - 2 * jnp.matmul(block, real.T, precision=jax.lax.Precision.HIGHEST)
        nearest = jax.lax.top_k(-distance, k)[1]
        return jnp.argmax(jax.nn.one_hot(labels[nearest], n_labels).sum(axis=1), axis=1)

    return jax.lax.map(block_votes, blocks)
