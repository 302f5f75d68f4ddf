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


def points(cells: Cells) -> np.ndarray:
    return cells.expression


def test_no_side_has_more_cells_than_are_real():
    """Those kept hang on seed and condition alone, so sides of the same cells keep the same ones."""
    many = RNG.normal(2, 0.5, (200, 60))
    real, other = side(REAL, "real"), side(many, "train")
    again = Side(other.cells, {"another": np.arange(150), **other.rows}, {"c": np.ones(60, np.float32)})
    found = distance_metrics(real, {"generated": side(REAL + 1, "generated"), "beside": other}, points, 0)
    assert found["generated"]["condition_n"] == found["beside"]["condition_n"] == {"c": [30, 30]}
    kept = other.at_most({"c": 30}, 0)
    assert found["beside"]["scfid"] == pytest.approx(metrics.scfid(REAL, kept.expression("c")), rel=1e-4)
    np.testing.assert_array_equal(again.at_most({"c": 30}, 0).keys("c"), kept.keys("c"))
    np.testing.assert_allclose(again.at_most({"c": 30}, 0).expression("c"), kept.expression("c") + 1)
    assert len(np.intersect1d(other.at_most({"c": 30}, 1).keys("c"), kept.keys("c"))) < 30
    np.testing.assert_array_equal(other.at_most({"c": 300, "none": 5}, 0).keys("c"), other.keys("c"))


def test_a_perfect_model_is_not_worse_than_many_wrong_cells():
    rng, wrong = np.random.default_rng(5), 0.5 / np.sqrt(10)

    def sample(n: int, origin: str, off: float = 0.0) -> Side:
        cells = Cells(
            (rng.normal(size=(10 * n, 10)) + off).astype(np.float32),
            Sentences.of([np.arange(2)] * (10 * n)),
            named(origin, np.arange(10 * n)),
        )
        return Side.of(cells, np.repeat([f"c{i}" for i in range(10)], n))

    real, perfect, many = sample(15, "test"), sample(15, "generated"), sample(200, "train", wrong)
    found = distance_metrics(real, {"generated": perfect, "control_cells": many}, points, 0)
    for name in ("scfid", "mmd", "wasserstein"):
        assert found["control_cells"][f"{name}_gain_ci"][0] <= 0, name


def test_one_kernel_a_condition():
    """Where most of a condition's real cells are the same, that of all real cells."""
    real = {"a": RNG.normal(size=(20, 3)), "b": RNG.normal(size=(20, 3)) * 4, "same": np.ones((4, 3))}
    labels = np.repeat(list(real), [len(cells) for cells in real.values()])
    every = np.concatenate(list(real.values()))

    def moved(factor: float, origin: str) -> Side:
        return Side.of(side(every * factor, origin).cells, labels)

    sides = {"generated": moved(1.2, "generated"), "far": moved(30, "far")}
    found = distance_metrics(moved(1, "real"), sides, points, 0)
    for name, factor in (("generated", 1.2), ("far", 30)):
        for condition, cells in real.items():
            gamma = metrics.median_gamma(every if condition == "same" else cells)
            expected = metrics.mmd(cells, cells * factor, gammas=(gamma,))
            assert found[name]["mmd_by_condition"][condition] == pytest.approx(expected, rel=1e-3, abs=1e-5)


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
