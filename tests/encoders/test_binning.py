"""Bins of expression against NumPy, a cell at a time."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.encoders.binning import bin_values


def reference(values: NDArray, uniforms: NDArray, n_bins: int) -> NDArray:
    """The published recipe for one cell: quantiles, then both ways of counting edges."""
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    left, right = np.digitize(values, edges), np.digitize(values, edges, right=True)
    return np.ceil(uniforms * (right - left) + left).astype(np.int64)


def cells(kind: str) -> sparse.csr_matrix:
    """Of very different depth, some with one value or none."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.3, 2.0, 400) * rng.gamma(1.0, 3.0, (60, 1))
    dense = rng.poisson(rate).astype(np.float32)
    dense[3] = dense[7] = 0
    dense[7, 5] = 4
    counts = sparse.csr_matrix(dense)
    if kind == "normalised":
        counts.data = np.log1p(counts.data / np.repeat(counts.sum(1).A1, np.diff(counts.indptr)) * 1e4).astype("f4")
    elif kind == "continuous":
        counts.data = rng.random(counts.nnz).astype(np.float32)
    return counts


@pytest.mark.parametrize("kind", ["counts", "normalised", "continuous"])
@pytest.mark.parametrize("n_bins", [51, 7])
def test_equals_the_recipe_with_given_uniforms(kind: str, n_bins: int) -> None:
    matrix = cells(kind)
    uniforms = np.random.default_rng(1).random(matrix.nnz)
    found = bin_values(matrix.data, matrix.indptr, uniforms, n_bins)
    ties = 0
    for start, stop in zip(matrix.indptr, matrix.indptr[1:]):
        if start < stop:
            part = slice(start, stop)
            expected = reference(matrix.data[part], uniforms[part], n_bins)
            np.testing.assert_array_equal(found[part], expected)
            ties += (expected != reference(matrix.data[part], 0 * uniforms[part], n_bins)).sum()
    assert found.min() == 1
    assert found.max() == n_bins - 1
    assert kind == "continuous" or ties > matrix.nnz / 10  # or the uniforms would not matter


def test_one_number_for_all_and_no_values() -> None:
    matrix = cells("counts")
    middle = bin_values(matrix.data, matrix.indptr, 0.5)
    np.testing.assert_array_equal(middle, bin_values(matrix.data, matrix.indptr, np.full(matrix.nnz, 0.5)))
    assert len(bin_values(np.zeros(0), np.zeros(4, int), 0.5)) == 0


def test_lattice_values_hit_edges_exactly() -> None:
    """51 values whose quantiles are values themselves, up to rounding, as NumPy rounds."""
    values = np.arange(1, 99, dtype=np.float32) * np.float32(0.1)
    uniforms = np.random.default_rng(0).random(len(values))
    np.testing.assert_array_equal(bin_values(values, np.array([0, 98]), uniforms), reference(values, uniforms, 51))
