"""Checks of arrays that the metrics share."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_SMALLEST_BUCKET = 64


def bucket(n: int) -> int:
    """Rows to pad to: powers of two, so that conditions of many sizes share a few compiled programs."""
    return max(_SMALLEST_BUCKET, 1 << (n - 1).bit_length())


def embedding_array(values: ArrayLike, name: str) -> np.ndarray[Any, Any]:
    """Return `values` as a finite float array [cells, dimensions], float64 kept, all else float32."""
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name} must be [cells, dimensions], got shape {array.shape}")
    if array.dtype != np.float64:
        array = array.astype(np.float32)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} holds NaN or infinity in {int(bad.sum())} of {len(array)} cells, "
            f"first in row {int(bad.argmax())}; remove those cells or mend the embedding"
        )
    return array


def embedding_pair(real: ArrayLike, generated: ArrayLike) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Check two embeddings of cells and that they live in one space."""
    left, right = embedding_array(real, "real"), embedding_array(generated, "generated")
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"real cells have {left.shape[1]} dimensions and generated cells {right.shape[1]}; "
            "embed both with the same encoder"
        )
    return left, right


def label_array(labels: ArrayLike, n_cells: int, name: str) -> np.ndarray[Any, Any]:
    """Return `labels` as an array of str with one label a cell."""
    array = np.asarray(labels).astype(str)
    if array.shape != (n_cells,):
        raise ValueError(f"{name} must hold one label for each of {n_cells} cells, got shape {array.shape}")
    return array
