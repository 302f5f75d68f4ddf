"""The ranking loops, on values and keys made to take each of their ways, against NumPy's sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from c2s_jax.cells import mix
from c2s_jax.cells.ranking import _rank_by_keys
from c2s_jax.cells.ranking_kernel import LONGEST
from c2s_jax.cells.sorting_network import DEPTH, LANES, sort_columns
from c2s_jax.jit import compiled


def _unmixed(keys: np.ndarray) -> np.ndarray:
    """What `mix` makes `keys` of: its steps undone in Python's integers."""

    def undo(x: int) -> int:
        for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
            unshifted = x
            for _ in range(64 // shift):
                unshifted = x ^ (unshifted >> shift)
            x = unshifted * pow(factor, -1, 2**64) % 2**64
        return x

    return np.array([undo(key) for key in keys.tolist()], np.uint64)


def _sorted(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Places by falling value, then key, then place."""
    return np.lexsort((keys, -np.unique(values, return_inverse=True)[1]))


def _ranked(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Places of one cell's entries as the loops rank them, their final tie keys being `keys`."""
    n = len(values)
    row = sparse.csr_matrix((np.ones(n, np.float32), np.arange(n), [0, n]), (1, n))
    indptr = np.array([0, n])
    ranked = _rank_by_keys(row, indptr, values, np.array([12345], np.uint64), keys, indptr)
    assert ranked is not None
    return ranked.genes


def _as_gene_keys(keys: np.ndarray) -> np.ndarray:
    return _unmixed(keys) ^ np.uint64(12345)


def test_mix_can_be_undone():
    numbers = np.random.default_rng(0).integers(0, 2**64, 100, dtype=np.uint64)
    np.testing.assert_array_equal(_unmixed(mix(numbers.copy())), numbers)


VALUES = {
    "ones": lambda rng, n: np.ones(n, np.float32),
    "counts": lambda rng, n: rng.geometric(0.5, n).astype(np.float32),
    "counts, heavy tail": lambda rng, n: (rng.pareto(0.7, n) + 1).astype(np.float32).round(),
    "large integers": lambda rng, n: rng.integers(1, 2**62, n).astype(np.int64),
    "all apart": lambda rng, n: rng.permutation(n) + 1.5,
    "powers": lambda rng, n: 10.0 ** rng.integers(-300, 300, n),
    "one far away": lambda rng, n: np.where(np.arange(n) == n // 2, 1e-300, 1 + rng.integers(0, 3, n) * 1e-9),
    # apart in float64, equal in float32, and many of each: their buckets overflow
    "two close": lambda rng, n: 3.0 + rng.integers(0, 2, n) * 1e-15,
    "smallest": lambda rng, n: rng.integers(1, 4, n) * np.finfo(np.float64).smallest_subnormal,
    "bounds": lambda rng, n: rng.choice([np.float32(1e-45), np.finfo(np.float32).max], n),
}
KEYS = {
    "uniform": lambda rng, n: rng.integers(0, 2**64, n, dtype=np.uint64),
    "few": lambda rng, n: rng.integers(0, 2**64, 3, dtype=np.uint64)[rng.integers(0, 3, n)],
    "equal": lambda rng, n: np.full(n, 7, np.uint64),
    # told apart by the last bits only, which words do not hold
    "equal beginnings": lambda rng, n: (
        (rng.integers(0, 2**64, 1 + n // 6, dtype=np.uint64) & ~np.uint64(0xFFFF))[rng.integers(0, 1 + n // 6, n)]
        | rng.integers(0, 2**16, n, dtype=np.uint64)
    ),
    "extremes": lambda rng, n: rng.choice(np.array([0, 1, 2**64 - 2, 2**64 - 1], np.uint64), n),
}


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(VALUES)),
    st.sampled_from(sorted(KEYS)),
    st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 128, 255, 256, 257, 500, 1023, 1025])),
    st.integers(0, 2**32),
)
def test_one_cell(values, keys, n, seed):
    rng = np.random.default_rng(seed)
    values, keys = VALUES[values](rng, n), KEYS[keys](rng, n)
    np.testing.assert_array_equal(_ranked(values, _as_gene_keys(keys)), _sorted(values, keys))


@pytest.mark.parametrize("values", sorted(VALUES))
@pytest.mark.parametrize("n", [20_000, 70_000])
def test_long_cells(values, n):
    """Longer than the numbers of 16 bits go."""
    rng = np.random.default_rng(n)
    values, gene_keys = VALUES[values](rng, n), rng.integers(0, 2**64, n, dtype=np.uint64)
    np.testing.assert_array_equal(_ranked(values, gene_keys), _sorted(values, mix(gene_keys ^ np.uint64(12345))))


@pytest.mark.parametrize("n", [LONGEST, LONGEST + 1])
def test_longest_cells(n):
    rng = np.random.default_rng(0)
    values, gene_keys = rng.geometric(0.5, n).astype(np.float32), rng.integers(0, 2**64, n, dtype=np.uint64)
    np.testing.assert_array_equal(_ranked(values, gene_keys), _sorted(values, mix(gene_keys ^ np.uint64(12345))))


def test_cells_of_any_length_after_one_another():
    """What one cell leaves in the memory that they share does not reach the next."""
    rng = np.random.default_rng(3)
    lengths = np.concatenate([rng.integers(0, 400, 60), [0, 3000, 1, 2, 0, 1000, 0]])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    kinds = sorted(set(VALUES) - {"large integers"})
    values = np.concatenate([VALUES[kinds[i % len(kinds)]](rng, n) for i, n in enumerate(lengths)])
    genes = np.concatenate([rng.permutation(3000)[:n] for n in lengths])
    cell_keys, gene_keys = (rng.integers(0, 2**64, n, dtype=np.uint64) for n in (len(lengths), 3000))
    matrix = sparse.csr_matrix((values, genes, indptr), (len(lengths), 3000))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((mix(gene_keys[genes] ^ cell_keys[rows]), -np.unique(values, return_inverse=True)[1], rows))
    ranked = _rank_by_keys(matrix, indptr, values, cell_keys, gene_keys, indptr)
    assert ranked is not None
    np.testing.assert_array_equal(ranked.genes, genes[order])
    np.testing.assert_array_equal(ranked.values, matrix.data[order])


def test_network_sorts_all_columns_of_zeros_and_ones():
    """Then it sorts any numbers (the 0–1 principle, Knuth, The Art of Computer Programming 3, 5.3.4)."""

    @compiled
    def sort_all(table: np.ndarray) -> None:
        for first in range(0, len(table), LANES * DEPTH):
            sort_columns(table, first)

    columns = (np.arange(2**DEPTH) >> np.arange(DEPTH)[:, None] & 1).astype(np.uint32)
    table = columns.reshape(DEPTH, -1, LANES).transpose(1, 0, 2).copy()
    sort_all(table.reshape(-1))
    found = table.transpose(1, 0, 2).reshape(DEPTH, -1)
    np.testing.assert_array_equal(found, np.sort(columns, axis=0))
