import numpy as np
import pytest
from scipy.optimize import curve_fit

from c2s_jax.metrics.power_law import PowerLaw, band, bootstrap_power_law, fit_power_law

N = np.geomspace(2e4, 3e6, 7)
TRUE = PowerLaw(1.7, (60.0,), (0.35,))


def noisy(law, *variables, sd=0.003, seed=0):
    rng = np.random.default_rng(seed)
    return law(*variables) * np.exp(rng.normal(0, sd, np.broadcast(*variables).shape))


def test_a_law_is_found_again():
    found = fit_power_law([N], TRUE(N))
    np.testing.assert_allclose(found.offset, 1.7, rtol=1e-3)
    np.testing.assert_allclose(found.exponents, [0.35], rtol=1e-3)
    np.testing.assert_allclose(found.scales, [60.0], rtol=1e-2)
    np.testing.assert_allclose(found(3e7), TRUE(3e7), rtol=1e-4)


def test_beside_scipys_curve_fit():
    """Without outliers, and least squares of the loss itself: the same curve to within the noise."""
    loss = noisy(TRUE, N)
    (offset, scale, exponent), _ = curve_fit(
        lambda n, e, a, x: e + a * (n / N[0]) ** -x, N, loss, p0=[1.0, 1.0, 0.5], maxfev=20_000
    )
    at = np.geomspace(N[0], N[-1], 20)
    np.testing.assert_allclose(fit_power_law([N], loss)(at), offset + scale * (at / N[0]) ** -exponent, rtol=4e-3)


def test_an_outlier_pulls_less_than_in_least_squares():
    loss = TRUE(N)
    loss[3] *= 1.2
    (offset, scale, exponent), _ = curve_fit(
        lambda n, e, a, x: e + a * (n / N[0]) ** -x, N, loss, p0=[1.0, 1.0, 0.5], maxfev=20_000
    )
    squares = offset + scale * (3e7 / N[0]) ** -exponent
    assert abs(fit_power_law([N], loss)(3e7) - TRUE(3e7)) < 0.1 * abs(squares - TRUE(3e7))


def test_both_variables():
    law = PowerLaw(1.5, (80.0, 300.0), (0.4, 0.45))
    n, d = (x.ravel() for x in np.meshgrid(N, np.geomspace(1e5, 2e6, 6)))
    found = fit_power_law([n, d], law(n, d))
    np.testing.assert_allclose(found.exponents, law.exponents, rtol=2e-2)
    np.testing.assert_allclose(found.offset, 1.5, rtol=2e-2)
    np.testing.assert_allclose(found(1e7, 1e7), law(1e7, 1e7), rtol=5e-3)


def test_bands_hold_the_truth_about_as_often_as_they_say():
    held = []
    for seed in range(30):
        loss = noisy(TRUE, N, seed=seed)
        laws = bootstrap_power_law([N], loss, fit_power_law([N], loss), samples=60, seed=seed)
        low, high = band(laws, 6e6)
        held.append(low <= TRUE(6e6) <= high)
    assert 0.6 < np.mean(held) <= 1.0


def test_bands_widen_away_from_the_points_and_with_noise():
    quiet, loud = noisy(TRUE, N, sd=0.002), noisy(TRUE, N, sd=0.02)

    def width(loss, at):
        low, high = band(bootstrap_power_law([N], loss, fit_power_law([N], loss), samples=60), at)
        return high - low

    assert width(quiet, 1e9) > 2 * width(quiet, N[3])
    assert width(loud, N[3]) > 2 * width(quiet, N[3])


def test_residuals_of_a_group_stay_together():
    """Runs off by a constant each, no noise within: points apart make the bands too narrow."""
    law = PowerLaw(1.5, (80.0, 300.0), (0.4, 0.45))
    n, d = np.meshgrid(N, np.geomspace(1e5, 2e6, 8), indexing="ij")
    offsets = np.random.default_rng(1).normal(0, 0.02, (len(N), 1))
    loss, x = (law(n, d) * np.exp(offsets)).ravel(), [n.ravel(), d.ravel()]
    fitted = fit_power_law(x, loss)
    runs = np.repeat(np.arange(len(N)), 8)
    widths = []
    for groups in (None, runs):
        low, high = band(bootstrap_power_law(x, loss, fitted, groups=groups, samples=60), N[-1], 2e6)
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize(
    ("variables", "loss", "said"),
    [
        ([[1.0, 2.0]], [3.0, 2.0], "2 points are too few"),
        ([[1.0, 2.0, 0.0]], [3.0, 2.0, 1.0], "positive"),
        ([[1.0, 2.0, 3.0]], [3.0, np.nan, 1.0], "positive and finite"),
        ([[1.0, 2.0, 3.0]], [3.0, 2.0], r"must be \[K, P\] and \[P\]"),
    ],
)
def test_what_cannot_be_fitted(variables, loss, said):
    with pytest.raises(ValueError, match=said):
        fit_power_law(variables, loss)


def test_no_residuals_and_unequal_groups():
    law = fit_power_law([N[:3]], TRUE(N[:3]))
    with pytest.raises(ValueError, match="3 points leave no residuals beside 3 parameters"):
        bootstrap_power_law([N[:3]], TRUE(N[:3]), law)
    with pytest.raises(ValueError, match="they have 1 to 6"):
        bootstrap_power_law([N], TRUE(N), TRUE, groups=[0] * 6 + [1])
    with pytest.raises(ValueError, match="of 1 variables was given 2"):
        law(1.0, 2.0)
