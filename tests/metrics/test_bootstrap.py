"""Bootstrap intervals against SciPy's and against what theory says."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from c2s_jax.metrics import bootstrap, cell_weights, scfid_on_device, shifted_interval


def difference(x: object, y: object) -> object:
    return jnp.mean(jnp.asarray(x)) - jnp.mean(jnp.asarray(y))


def test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 2, 60), rng.normal(0, 1, 80)
    got = bootstrap(difference, x, y, resamples=4000, level=0.9)
    want = stats.bootstrap(
        (x, y),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        method="percentile",
        confidence_level=0.9,
        n_resamples=4000,
        rng=rng,
    )
    assert got.estimate == pytest.approx(x.mean() - y.mean(), rel=1e-5)
    assert (got.low, got.high) == pytest.approx(tuple(want.confidence_interval), abs=0.03)
    assert got.standard_error == pytest.approx(want.standard_error, rel=0.05)
    assert got.n == (60, 80)
    assert abs(got.bias) < 0.03


def test_pairs_stay_together() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = x + 0.01 * rng.normal(size=200)
    paired = bootstrap(difference, x, y, resamples=200, paired=True)
    assert paired.standard_error < 0.002 < bootstrap(difference, x, y, resamples=200).standard_error


def test_resamples_hang_on_seed_and_number_alone() -> None:
    x, y = np.arange(9.0), np.arange(7.0)
    a, b = (bootstrap(difference, x, y, resamples=50, seed=3, at_once=k) for k in (1, 16))
    assert a == b
    assert bootstrap(difference, x, y, resamples=50, seed=4).low != a.low


def test_scfid_is_resampled_by_cells_and_says_its_bias() -> None:
    """Cells that repeat add to the distance: the bias is no small part of it and has to be seen."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(50, 6)), rng.normal(size=(40, 6)) + 0.5
    got = bootstrap(scfid_on_device, real, generated, resamples=64)
    assert got.estimate == pytest.approx(float(scfid_on_device(real, generated)), rel=1e-5)
    assert got.low < got.high
    assert got.bias > 0


def test_weights_of_cells_make_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 80)
    weights = cell_weights(np.arange(80), resamples=4000)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    drawn = weights @ values
    assert drawn.std() == pytest.approx(values.std() / 9, rel=0.05)  # Rubin 1981: variance / (n + 1)
    want = bootstrap(jnp.mean, values, resamples=4000)
    assert shifted_interval(values.mean(), drawn) == pytest.approx((want.low, want.high), abs=0.04)
    assert shifted_interval(values.mean(), drawn + 100) == pytest.approx(shifted_interval(values.mean(), drawn))


def test_a_cell_weighs_the_same_beside_others() -> None:
    some, more = cell_weights([7, 9, 4], resamples=5, seed=1), cell_weights([4, 7, 100, 9], resamples=9, seed=1)
    ratios = more[:5] / more[:5, [1]]
    np.testing.assert_allclose(some / some[:, [0]], ratios[:, [1, 3, 0]])
    assert not np.allclose(some, cell_weights([7, 9, 4], resamples=5, seed=2))


def test_bad_arguments_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="at least 2, got sizes"):
        bootstrap(difference, [1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="one size, got"):
        bootstrap(difference, [1.0, 2.0], [1.0, 2.0, 3.0], paired=True)
    with pytest.raises(ValueError, match="within"):
        bootstrap(difference, [1.0, 2.0], [1.0, 2.0], level=95)
    with pytest.raises(ValueError, match="NaN or infinite in"):
        bootstrap(difference, [1.0, np.nan], [1.0, 2.0], resamples=4)
