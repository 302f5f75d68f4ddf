"""Matrices of an AnnData as canonical CSR."""

import numpy as np
import pytest
from scipy import sparse

from c2s_jax.cells import expression_matrix
from c2s_jax.cells.source import as_csr
from tests.cells.test_expression import COUNTS, small


def read_only(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """As a memory map of a file has it."""
    for values in (matrix.data, matrix.indices, matrix.indptr):
        values.flags.writeable = False
    return matrix


def test_a_matrix_that_cannot_be_written_is_read():
    cells = small(sparse.csr_matrix(COUNTS))
    read_only(cells.X)
    found = expression_matrix(cells)
    np.testing.assert_array_equal(found.matrix.toarray(), expression_matrix(small()).matrix.toarray())


@pytest.mark.parametrize("data", [[5, 2, 1], [5, 0, 1]])
@pytest.mark.parametrize("indices", [[0, 2, 1], [2, 0, 1], [0, 0, 1]])
def test_any_order_twice_and_zeros(data, indices):
    parts = (np.array(data, np.float32), np.array(indices), np.array([0, 2, 3]))
    given = read_only(sparse.csr_matrix(parts, shape=(2, 3)))
    found = as_csr(given, "X")
    assert found.has_canonical_format
    assert np.all(found.data)
    np.testing.assert_array_equal(found.toarray(), given.toarray())
