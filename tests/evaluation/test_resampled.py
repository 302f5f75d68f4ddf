"""Means over conditions with intervals: what is drawn anew, and what is drawn alike."""

import numpy as np
import pytest

from c2s_jax import metrics
from c2s_jax.evaluation.changes import change_metrics
from c2s_jax.evaluation.distances import distance_metrics
from c2s_jax.evaluation.resampled import MIN_CONDITIONS, RESAMPLES, Score, told
from c2s_jax.evaluation.sides import Cells, Sentences, Side, named

RNG = np.random.default_rng(0)


def scores(values: np.ndarray, noise: np.ndarray) -> dict[str, Score]:
    """Conditions of these values; their cells' resamples [K, R] are the values and this noise."""
    return {f"c{i}": Score(float(v), v + e) for i, (v, e) in enumerate(zip(values, noise, strict=True))}


def test_of_few_conditions_cells_alone_are_drawn():
    values, noise = RNG.normal(size=4), RNG.normal(3, 1, size=(4, RESAMPLES))
    found = told({"generated": {"x": scores(values, noise)}}, 0, model="generated")["generated"]
    low, high = np.quantile(noise.mean(0), [0.025, 0.975]) - noise.mean()
    assert found["x"] == pytest.approx(values.mean())
    assert found["x_ci"] == pytest.approx([values.mean() + low, values.mean() + high])
    assert found["resampled"] == "cells"
    still = told({"generated": {"x": scores(values, 0 * noise)}}, 0, model="generated")["generated"]
    assert still["x_ci"] == pytest.approx([values.mean()] * 2)


def test_of_many_conditions_these_are_drawn_too():
    """Without noise of cells the interval is that of the mean of the conditions' values."""
    values = RNG.normal(size=40)
    found = told({"generated": {"x": scores(values, np.zeros((40, RESAMPLES)))}}, 0, model="generated")["generated"]
    assert found["resampled"] == "conditions and cells"
    margin = 1.96 * values.std() / np.sqrt(41)
    assert found["x_ci"] == pytest.approx([values.mean() - margin, values.mean() + margin], abs=0.25 * margin)


@pytest.mark.parametrize("n", [5, MIN_CONDITIONS])
def test_gains_are_paired(n):
    """A side that is below the model by the same in every resample has a gain without width."""
    values, noise = RNG.normal(size=n), RNG.normal(size=(n, RESAMPLES))
    model = scores(values, noise)
    some = dict(list(scores(values - 2, noise).items())[1:])  # the side lacks a condition
    found = told({"generated": {"x": model}, "beside": {"x": some}}, 0, model="generated")
    assert found["beside"]["x_gain_ci"] == pytest.approx([2, 2])
    assert found["beside"]["x"] == pytest.approx(values[1:].mean() - 2)
    assert found["beside"]["x_ci"][0] < found["beside"]["x"] - 0.1
    assert "x_gain_ci" not in found["generated"]


def test_intervals_end_where_a_metric_does():
    loud = scores(np.full(3, 0.99), RNG.normal(size=(3, RESAMPLES)))
    names = ("scfid", "de_overlap", "pearson_delta")
    found = told({"generated": dict.fromkeys(names, loud)}, 0, model="generated")["generated"]
    assert found["scfid_ci"][0] == 0
    assert found["scfid_ci"][1] > 1
    assert found["de_overlap_ci"] == [0, 1]
    assert found["pearson_delta_ci"][1] == 1


def test_nothing_to_compare():
    assert told({"generated": {"x": {}}}, 0, model="generated")["generated"]["x_ci"] is None


def side(expression: np.ndarray, origin: str) -> Side:
    n = len(expression)
    cells = Cells(expression.astype(np.float32), Sentences.of([np.arange(2)] * n), named(origin, np.arange(n)))
    return Side.of(cells, np.full(n, "c"))


CONTROL, REAL = RNG.normal(2, 0.5, (40, 60)), RNG.normal(2, 0.5, (30, 60)) + np.linspace(-1, 1, 60)


def test_the_same_cells_are_drawn_alike():
    """Control cells do not change from themselves, and real cells are no distance from themselves, in any resample."""
    control, real = side(CONTROL, "control"), side(REAL, "real")
    named_alike = {"real": side(REAL, "real"), "control": side(CONTROL, "control")}
    sides = {"generated": side(REAL, "generated"), "other": side(CONTROL, "other"), **named_alike}
    found = change_metrics(real, sides, control, 0)
    assert found["control"]["pearson_delta_ci"] == [0, 0]
    assert found["real"]["pearson_delta_ci"] == pytest.approx([1, 1])
    assert found["real"]["de_overlap_ci"] == [1, 1]
    assert found["generated"]["pearson_delta_ci"][0] < 0.999  # the same values, as other cells
    assert found["other"]["pearson_delta"] == 0
    assert found["other"]["pearson_delta_ci"][1] > 0
    distances = distance_metrics(real, sides, lambda cells: cells.expression, 0)
    for name in ("scfid", "mmd", "wasserstein"):
        assert distances["real"][f"{name}_ci"] == pytest.approx([0, 0], abs=1e-4)
        low, high = distances["control"][f"{name}_ci"]
        assert low < distances["control"][name] < high
        assert distances["control"][f"{name}_gain_ci"][1] < 0


def test_an_interval_of_changes_holds_what_other_samples_give():
    """About 95 % of intervals hold the mean over samples, over 60 samples of three populations."""

    def sample(rng: np.random.Generator) -> dict:
        real, made, control = (
            side(rng.normal(2, 0.8, (25, 60)) + shift * np.linspace(-1, 1, 60), name)
            for shift, name in ((1, "real"), (0.5, "made"), (0, "control"))
        )
        return change_metrics(real, {"generated": made}, control, 0)["generated"]

    found = [sample(np.random.default_rng(seed)) for seed in range(60)]
    for name in metrics.CHANGE_SCORES:
        expected = np.mean([one[name] for one in found])
        held = np.mean([one[f"{name}_ci"][0] <= expected <= one[f"{name}_ci"][1] for one in found])
        assert held > 0.8, (name, held)
