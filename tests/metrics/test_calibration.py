"""Calibration against scikit-learn, and answers whose calibration is known."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from c2s_jax.metrics import calibration


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_agrees_with_sklearn(bins):
    rng = np.random.default_rng(bins)
    p = rng.beta(3, 1, 500)
    right = rng.random(500) < p**2  # overconfident
    found = calibration(p, right, bins=bins)
    share, mean = calibration_curve(right, p, n_bins=bins)
    full = np.array(found.n) > 0
    np.testing.assert_allclose(np.array(found.accuracy)[full].astype(float), share)
    np.testing.assert_allclose(np.array(found.confidence)[full].astype(float), mean)
    assert found.brier == pytest.approx(brier_score_loss(right, p))
    weights = np.histogram(p, np.linspace(0, 1, bins + 1))[0]
    assert found.n == weights.tolist()
    assert found.ece == pytest.approx(np.average(np.abs(share - mean), weights=weights[full]))
    assert found.ece > 0.05


def test_known_answers():
    sure = calibration(np.ones(4), [True] * 4)
    assert (sure.ece, sure.brier) == (0, 0)
    assert calibration(np.ones(4), [False] * 4).ece == 1
    half = calibration([0.5] * 4, [True, False, True, False])
    assert (half.ece, half.brier) == (0, 0.25)
    assert half.n == [0] * 5 + [4] + [0] * 4
    assert half.accuracy[0] is None
    assert half.to_json()["confidence"][5] == 0.5


def test_calibrated_answers_have_a_small_error():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    assert calibration(p, rng.random(20_000) < p).ece < 0.02


def test_the_edges_of_bins():
    found = calibration([0.0, 0.1, 0.2, 1.0], [True] * 4)
    assert found.n == [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.5], [True, False], "got shapes"),
        ([], [], "N > 0"),
        ([0.5, 1.5], [True, True], "confidence 1.5 of answer 1 is outside"),
        ([0.5, np.nan], [True, True], "confidence nan of answer 1"),
    ],
)
def test_bad_input(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        calibration(confidence, correct)
    with pytest.raises(ValueError, match="bins=0"):
        calibration([0.5], [True], bins=0)
