"""How well an embedding keeps labels apart and batches together."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn import metrics as sklearn_metrics

from c2s_jax.metrics._checks import embedding_array, label_array


def silhouette(cells: ArrayLike, labels: ArrayLike, *, max_cells: int = 5000, seed: int = 0) -> float:
    """Mean silhouette width of labels (Rousseeuw 1987), Euclidean: 1 apart, 0 overlapping, negative wrong.

    Parameters
    ----------
    cells, labels
        Embeddings [n, d] and labels [n], at least two labels.
    max_cells
        Of more cells a random choice keyed by `seed` is taken: the measure needs all distances.
    """
    array = embedding_array(cells, "cells")
    names = label_array(labels, len(array), "labels")
    if len(array) > max_cells:
        rows = np.random.Generator(np.random.Philox(key=seed)).choice(len(array), max_cells, replace=False)
        array, names = array[rows], names[rows]
    if not 2 <= len(np.unique(names)) < len(names):
        raise ValueError(f"a silhouette needs 2 labels or more, and fewer than cells; got {len(np.unique(names))}")
    return float(sklearn_metrics.silhouette_score(array, names))


def batch_mixing(cells: ArrayLike, labels: ArrayLike, batches: ArrayLike) -> float:
    """``1 - |silhouette of batches|`` within each label, mean over cells, then over labels: 1 mixed, 0 apart.

    The batch ASW of scib (Luecken et al. 2022, Nat. Methods 19:41).

    Labels whose cells are of one batch, or all of different ones, are left out.

    Raises
    ------
    ValueError
        When none is left.
    """
    array = embedding_array(cells, "cells")
    names, groups = label_array(labels, len(array), "labels"), label_array(batches, len(array), "batches")
    found = []
    for label in np.unique(names).tolist():
        rows = names == label
        if 2 <= len(np.unique(groups[rows])) < rows.sum():
            found.append(np.mean(1 - np.abs(sklearn_metrics.silhouette_samples(array[rows], groups[rows]))))
    if not found:
        raise ValueError("no label has cells of two batches: there is no mixing to measure")
    return float(np.mean(found))
