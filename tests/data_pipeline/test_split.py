import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from data_pipeline.split import assign_cells, assign_groups, cell_hashes

FRACTIONS = (0.7, 0.1, 0.2)


def ids(n: int) -> list[str]:
    return [f"cell-{i}" for i in range(n)]


def assign(names, labels, fractions, seed):
    strata = np.zeros(len(names)) if labels is None else labels
    return assign_cells(cell_hashes(names, seed), strata, fractions)


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(st.sampled_from("ABCDE"), min_size=0, max_size=300),
    fractions=st.sampled_from([FRACTIONS, (0.8, 0.0, 0.2), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]),
    seed=st.integers(0, 3),
)
def test_totals_are_exact_and_labels_within_a_cell_or_two(labels, fractions, seed):
    splits = assign(ids(len(labels)), labels, fractions, seed)
    ends = np.floor(np.cumsum(fractions) * len(labels) + 0.5)
    np.testing.assert_array_equal(np.cumsum(np.bincount(splits, minlength=3)), ends)
    for label in set(labels):
        mine = np.bincount(splits[np.array(labels) == label], minlength=3)
        assert np.abs(mine - mine.sum() * np.array(fractions)).max() < 2.1


def test_shares_on_round_numbers():
    labels = np.repeat(["a", "b", "c"], [100, 50, 10])
    splits = assign(ids(160), labels, FRACTIONS, 0)
    for label, expected in (("a", [70, 10, 20]), ("b", [35, 5, 10]), ("c", [7, 1, 2])):
        assert np.bincount(splits[labels == label]).tolist() == expected


def test_row_order_does_not_matter_but_the_seed_does():
    labels = np.array(list("AB") * 100)
    names = np.array(ids(200))
    splits = assign(names, labels, FRACTIONS, 0)
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(assign(names[order], labels[order], FRACTIONS, 0), splits[order])
    assert (assign(names, labels, FRACTIONS, 1) != splits).sum() > 40


def test_split_of_today_is_the_split_of_tomorrow():
    """A change here breaks comparison with results of earlier versions."""
    splits = assign(ids(12), list("AAAAAABBBBBB"), (0.5, 0.25, 0.25), 0)
    assert "".join(map(str, splits)) == "001002120201"


def test_chosen_cells_are_spread_over_rows():
    splits = assign(ids(1000), None, FRACTIONS, 0)
    halves = [(splits[:500] == 2).sum(), (splits[500:] == 2).sum()]
    assert min(halves) > 75


# groups


def counted(rows) -> sparse.csr_matrix:
    """Counts of labels a group, with their sum as the first column."""
    labels = np.atleast_2d(rows)
    return sparse.csr_matrix(np.column_stack([labels.sum(1), labels]))


def names_of(n: int) -> np.ndarray:
    return cell_hashes([f"donor {i}" for i in range(n)], 0)


def test_ten_equal_groups_are_dealt_exactly():
    splits = assign_groups(counted(np.full((10, 2), 50)), names_of(10), FRACTIONS, "donor")
    assert np.bincount(splits).tolist() == [7, 1, 2]


def test_a_label_of_few_groups_is_spread_too():
    """Ten donors of a hundred cells; four of them have all cells of the second label."""
    rows = np.array([[50, 50]] * 4 + [[100, 0]] * 6)
    splits = assign_groups(counted(rows), names_of(10), (0.5, 0.0, 0.5), "donor")
    assert np.bincount(splits[:4], minlength=3).tolist() == [2, 0, 2]
    assert np.bincount(splits, minlength=3).tolist() == [5, 0, 5]


def test_a_huge_group_goes_to_train_and_no_split_stays_empty():
    splits = assign_groups(counted([[1000], [5], [4], [3]]), names_of(4), FRACTIONS, "donor")
    assert splits[0] == 0
    assert set(splits.tolist()) == {0, 1, 2}
    equal = assign_groups(counted([[10], [10], [10]]), names_of(3), FRACTIONS, "donor")
    assert sorted(equal.tolist()) == [0, 1, 2]


def test_too_few_groups():
    with pytest.raises(ValueError, match="cannot split by donor: there are 2 to go into 3 splits.*--split=80/0/20"):
        assign_groups(counted([[5], [5]]), names_of(2), FRACTIONS, "donor")
    assert sorted(assign_groups(counted([[5], [5]]), names_of(2), (0.8, 0.0, 0.2), "donor").tolist()) == [0, 2]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(any), min_size=3, max_size=40),
    seed=st.integers(0, 5),
)
def test_order_of_groups_does_not_matter(rows, seed):
    rows = np.array(rows)
    hashes = names_of(len(rows))
    splits = assign_groups(counted(rows), hashes, FRACTIONS, "donor")
    assert set(splits.tolist()) == {0, 1, 2}
    order = np.random.default_rng(seed).permutation(len(rows))
    again = assign_groups(counted(rows[order]), hashes[order], FRACTIONS, "donor")
    sizes = rows.sum(1)
    np.testing.assert_array_equal(again, splits[order])
    if sizes.max() < 0.05 * sizes.sum():
        shares = np.bincount(splits, sizes, minlength=3) / sizes.sum()
        assert np.abs(shares - FRACTIONS).max() < 0.06
