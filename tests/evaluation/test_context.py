import numpy as np

from c2s_jax.evaluation.context import some_of


def test_some_rows_are_of_every_part():
    rows = np.flatnonzero(np.arange(6_000) % 3)
    found = some_of(rows, 200)
    assert len(found) == 200
    assert (np.diff(found) > 0).all()
    assert np.isin(found, rows).all()
    assert np.histogram(found, bins=5, range=(0, 6_000))[0].min() > 20
    assert np.isin(some_of(rows, 50), found).all()  # a larger number adds cells


def test_no_more_rows_than_asked_for_stay_as_they_are():
    rows = np.array([2, 5, 9])
    for most in (None, 3, 4):
        np.testing.assert_array_equal(some_of(rows, most), rows)
