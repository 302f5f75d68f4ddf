import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.split import assign_splits

FRACTIONS = (0.7, 0.1, 0.2)


def ids(n: int) -> list[str]:
    return [f"cell-{i}" for i in range(n)]


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(st.sampled_from("ABCDE"), min_size=0, max_size=300),
    fractions=st.sampled_from([FRACTIONS, (0.8, 0.0, 0.2), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]),
    seed=st.integers(0, 3),
)
def test_totals_are_exact_and_labels_within_a_cell_or_two(labels, fractions, seed):
    splits = assign_splits(ids(len(labels)), labels, fractions, seed)
    ends = np.floor(np.cumsum(fractions) * len(labels) + 0.5)
    np.testing.assert_array_equal(np.cumsum(np.bincount(splits, minlength=3)), ends)
    for label in set(labels):
        mine = np.bincount(splits[np.array(labels) == label], minlength=3)
        assert np.abs(mine - mine.sum() * np.array(fractions)).max() < 2.1


def test_shares_on_round_numbers():
    labels = np.repeat(["a", "b", "c"], [100, 50, 10])
    splits = assign_splits(ids(160), labels, FRACTIONS, 0)
    for label, expected in (("a", [70, 10, 20]), ("b", [35, 5, 10]), ("c", [7, 1, 2])):
        assert np.bincount(splits[labels == label]).tolist() == expected


def test_row_order_does_not_matter_but_the_seed_does():
    labels = np.array(list("AB") * 100)
    names = np.array(ids(200))
    splits = assign_splits(names, labels, FRACTIONS, 0)
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(assign_splits(names[order], labels[order], FRACTIONS, 0), splits[order])
    assert (assign_splits(names, labels, FRACTIONS, 1) != splits).sum() > 40


def test_split_of_today_is_the_split_of_tomorrow():
    """A change here breaks comparison with results of earlier versions."""
    splits = assign_splits(ids(12), list("AAAAAABBBBBB"), (0.5, 0.25, 0.25), 0)
    assert "".join(map(str, splits)) == "001002120201"


def test_chosen_cells_are_spread_over_rows():
    splits = assign_splits(ids(1000), None, FRACTIONS, 0)
    halves = [(splits[:500] == 2).sum(), (splits[500:] == 2).sum()]
    assert min(halves) > 75


@pytest.mark.parametrize("fractions", [(0.5, 0.2), (0.7, 0.1, 0.3), (1.2, -0.2)])
def test_fractions_that_are_no_shares(fractions):
    with pytest.raises(ValueError, match="sum to 1"):
        assign_splits(ids(4), None, fractions, 0)


def test_repeated_cell_id():
    with pytest.raises(ValueError, match="'x' occurs more than once"):
        assign_splits(["y", "x", "x"], None, FRACTIONS, 0)
