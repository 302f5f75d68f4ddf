import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_jax.data.packing import plan_rows


def loads(lengths: np.ndarray, row_of: np.ndarray, rows: int) -> np.ndarray:
    placed = row_of >= 0
    return np.bincount(row_of[placed], weights=lengths[placed], minlength=rows)


def best_fit_decreasing(lengths: np.ndarray, rows: int, seq_len: int) -> list[int]:
    """Every row looked at for every example."""
    row_of, load, total = [-1] * len(lengths), [0] * rows, 0
    taken = []
    for i, length in enumerate(lengths.tolist()):
        if length <= seq_len:
            total += length
            if total <= rows * seq_len:
                taken.append((-length, i))
    for negative, i in sorted(taken):
        fitting = [(load[row], -row) for row in range(rows) if load[row] - negative <= seq_len]
        if fitting:
            row_of[i] = -max(fitting)[1]
            load[row_of[i]] -= negative
    return row_of


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 70), max_size=80), st.integers(1, 12), st.integers(1, 70))
def test_every_example_is_in_the_row_of_best_fit_decreasing(lengths, rows, seq_len):
    lengths = np.array(lengths, np.int64)
    assert plan_rows(lengths, rows, seq_len).tolist() == best_fit_decreasing(lengths, rows, seq_len)


def test_many_rows_are_as_best_fit_decreasing_has_them():
    """Enough rows of equal space for the order among them to matter."""
    rng = np.random.default_rng(7)
    for sizes in ((3, 5, 7, 11), tuple(range(1, 41)), (10,)):
        lengths = rng.choice(sizes, 3000)
        rows = int(lengths.sum() / 40)
        assert plan_rows(lengths, rows, 40).tolist() == best_fit_decreasing(lengths, rows, 40)


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


def examples(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    """Tokens of examples."""
    if kind == "one size":
        return np.full(n, 1000)
    if kind == "two sizes":
        return rng.choice([150, 2000], n)
    if kind == "heavy tail":
        return np.minimum(100 * (1 + rng.pareto(1.2, n)), 8192).astype(np.int64)
    # sentences of 100 to 1,000 genes, 3.4 tokens a gene, with a prompt
    return (3.4 * np.exp(rng.uniform(np.log(100), np.log(1000), n))).astype(np.int64) + rng.integers(20, 60, n)


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        ("genes", 0.99),
        ("two sizes", 0.98),
        ("heavy tail", 0.99),
        ("one size", 0.976),  # eight of 1,000 tokens a row: no plan fills more
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_long_rows_are_nearly_full(kind, least, seed):
    rows, seq_len = 64, 8192
    lengths = examples(kind, np.random.default_rng(seed), 20_000)
    lengths = lengths[np.cumsum(lengths) <= 1.03 * rows * seq_len]
    load = loads(lengths, plan_rows(lengths, rows, seq_len), rows)
    assert load.sum() / (rows * seq_len) >= least


def test_a_million_examples():
    """Minutes or more if the work an example took rose with the number of rows."""
    lengths = examples("genes", np.random.default_rng(0), 1_000_000)
    rows = int(lengths.sum() / 8192 / 1.03)
    row_of = plan_rows(lengths, rows, 8192)
    load = loads(lengths, row_of, rows)
    assert load.max() <= 8192
    assert load.sum() / (rows * 8192) >= 0.99


def test_long_examples_do_not_stop_the_rest():
    lengths = np.array([500, 10, 500, 10, 10])
    assert plan_rows(lengths, 1, 30).tolist() == [-1, 0, -1, 0, 0]


def test_no_examples():
    assert plan_rows(np.empty(0, np.int64), 4, 8).tolist() == []
