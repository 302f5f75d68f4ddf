import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_jax.data.packing import plan_rows


def loads(lengths: np.ndarray, row_of: np.ndarray, rows: int) -> np.ndarray:
    placed = row_of >= 0
    return np.bincount(row_of[placed], weights=lengths[placed], minlength=rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 70), max_size=60), st.integers(1, 8), st.integers(1, 64))
def test_nothing_overflows_and_nothing_is_wasted(lengths, rows, seq_len):
    lengths = np.array(lengths, np.int64)
    row_of = plan_rows(lengths, rows, seq_len)
    assert row_of.shape == lengths.shape
    assert row_of.min(initial=0) >= -1
    assert row_of.max(initial=-1) < rows
    load = loads(lengths, row_of, rows)
    assert load.max(initial=0) <= seq_len
    assert (row_of[lengths > seq_len] == -1).all()
    # Of the examples that fit in total, one left out fits in no row.
    fits = np.flatnonzero(lengths <= seq_len)
    considered = fits[np.cumsum(lengths[fits]) <= rows * seq_len]
    for i in considered[row_of[considered] < 0]:
        assert (load + lengths[i] > seq_len).all()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_when_there_is_room(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 100, 2000)
    lengths = lengths[np.cumsum(lengths) < 0.97 * 64 * 1000]
    assert (plan_rows(lengths, 64, 1000) >= 0).all()


def lognormal_lengths(rng: np.random.Generator, seq_len: int, total: int) -> np.ndarray:
    """Tokens of sentences of 100 to 1,000 genes, 3.4 tokens a gene, with a prompt."""
    genes = np.exp(rng.uniform(np.log(100), np.log(1000), total // 400))
    lengths = (3.4 * genes + rng.integers(20, 60, len(genes))).astype(np.int64)
    return lengths[np.cumsum(lengths) <= total]


@pytest.mark.parametrize("seed", range(5))
def test_long_rows_are_nearly_full(seed):
    rows, seq_len = 64, 8192
    lengths = lognormal_lengths(np.random.default_rng(seed), seq_len, int(1.03 * rows * seq_len))
    load = loads(lengths, plan_rows(lengths, rows, seq_len), rows)
    assert load.sum() / (rows * seq_len) >= 0.99


def test_long_examples_do_not_stop_the_rest():
    lengths = np.array([500, 10, 500, 10, 10])
    assert plan_rows(lengths, 1, 30).tolist() == [-1, 0, -1, 0, 0]


def test_no_examples():
    assert plan_rows(np.empty(0, np.int64), 4, 8).tolist() == []
