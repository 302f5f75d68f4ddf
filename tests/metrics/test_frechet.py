"""scFID against SciPy's matrix square root, in float32 and float64."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy.linalg import sqrtm

from c2s_jax.metrics import frechet, frechet_distance, scfid, scfid_by_condition

# SciPy warns of singular products; their trace is right all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Matrix is singular")

# (real cells, generated cells, dimensions, decades of standard deviations, common offset)
POPULATIONS = {
    "well-conditioned": (500, 400, 24, 0, 0.0),
    "ill-conditioned": (500, 400, 24, 3, 0.0),
    "fewer cells than dimensions": (15, 11, 24, 0, 0.0),
    "two cells": (2, 300, 24, 1, 0.0),
    "far from the origin": (300, 70, 24, 1, 300.0),
}


def population(name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    n, m, d, decades, offset = POPULATIONS[name]
    rng = np.random.default_rng(len(name))
    scale = np.logspace(0, -decades, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0] * np.eye(d)
    mixing = np.linalg.qr(rng.normal(size=(d, d)))[0] * np.logspace(0, -decades, d)
    real = rng.normal(size=(n, d)) @ mixing.T + offset
    generated = 1.3 * rng.normal(size=(m, d)) @ (mixing[:, ::-1] + 0.2 * scale).T + 0.1 + offset
    return real, generated


def textbook(real: np.ndarray[Any, Any], generated: np.ndarray[Any, Any]) -> float:
    """The formula in float64, through SciPy's Schur square root of the unsymmetric product."""
    left, right = np.cov(real.T), np.cov(generated.T)
    root = np.trace(sqrtm(left @ right).real)
    return float(((real.mean(0) - generated.mean(0)) ** 2).sum() + np.trace(left) + np.trace(right) - 2 * root)


@pytest.mark.parametrize("name", POPULATIONS)
def test_float64_agrees_with_scipy(name: str) -> None:
    real, generated = population(name)
    with jax.enable_x64(True):
        got = scfid(real, generated)
    assert got == pytest.approx(textbook(real, generated), rel=1e-6)


@pytest.mark.parametrize("name", POPULATIONS)
def test_float32_is_within_a_few_units_of_rounding(name: str) -> None:
    real, generated = population(name)
    assert scfid(real, generated) == pytest.approx(textbook(real, generated), rel=1e-5)


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(("x64", "bound"), [(True, 1e-6), (False, 1e-3)])
def test_moments_agree_with_scipy(name: str, x64: bool, bound: float) -> None:
    real, generated = population(name)
    moments = (real.mean(0), np.cov(real.T), generated.mean(0), np.cov(generated.T))
    with jax.enable_x64(x64):
        got = frechet_distance(*moments)
    assert got == pytest.approx(textbook(real, generated), rel=bound)


@pytest.mark.parametrize("name", ["fewer cells than dimensions", "two cells"])
def test_moments_of_low_rank_lose_nothing_to_rounded_null_space(name: str) -> None:
    real, generated = population(name)
    got = frechet_distance(real.mean(0), np.cov(real.T), generated.mean(0), np.cov(generated.T))
    assert got == pytest.approx(textbook(real, generated), rel=1e-5)


def test_shifted_copy_differs_by_the_shift_alone() -> None:
    real = np.random.default_rng(0).normal(size=(9, 40))
    assert scfid(real, real + 0.5) == pytest.approx(40 * 0.25, rel=1e-6)
    assert 0 <= scfid(real, real) < 1e-9


def test_order_of_cells_and_rotation_do_not_matter() -> None:
    real, generated = population("ill-conditioned")
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0]
    want = scfid(real, generated)
    assert scfid(real[::-1], generated) == pytest.approx(want, rel=1e-5)
    assert scfid(real @ rotation, generated @ rotation) == pytest.approx(want, rel=1e-5)
    assert scfid(generated, real) == pytest.approx(want, rel=1e-5)


def conditions() -> tuple[np.ndarray[Any, Any], ...]:
    rng = np.random.default_rng(3)
    real_labels = np.repeat(["B", "T", "NK", "rare", "only real"], [40, 25, 7, 1, 5])
    generated_labels = np.repeat(["T", "B", "NK", "rare", "only generated"], [30, 9, 12, 6, 4])
    return (
        rng.normal(size=(len(real_labels), 10)),
        rng.normal(size=(len(generated_labels), 10)) + 0.3,
        rng.permutation(real_labels),
        rng.permutation(generated_labels),
    )


def test_by_condition_is_the_unweighted_mean_and_reports_n() -> None:
    real, generated, real_labels, generated_labels = conditions()
    result = scfid_by_condition(real, generated, real_labels, generated_labels)
    want = {c: textbook(real[real_labels == c], generated[generated_labels == c]) for c in ("B", "NK", "T")}
    assert dict(result.per_condition) == pytest.approx(want, rel=1e-5)
    assert result.mean == pytest.approx(np.mean(list(want.values())), rel=1e-5)
    assert result.n == {"B": (40, 9), "NK": (7, 12), "T": (25, 30)}
    assert result.skipped == {"rare": (1, 6), "only real": (5, 0), "only generated": (0, 4)}


def test_equal_n_takes_the_same_cells_whatever_else_is_there() -> None:
    real, generated, real_labels, generated_labels = conditions()
    whole = scfid_by_condition(real, generated, real_labels, generated_labels, equal_n=True)
    assert whole.n == {"B": (9, 9), "NK": (7, 7), "T": (25, 25)}
    keep = real_labels == "B"
    alone = scfid_by_condition(real[keep], generated, real_labels[keep], generated_labels, equal_n=True)
    assert alone.per_condition["B"] == whole.per_condition["B"]
    other = scfid_by_condition(real, generated, real_labels, generated_labels, equal_n=True, seed=1)
    assert other.per_condition["B"] != whole.per_condition["B"]


def test_conditions_of_many_sizes_share_compiled_programs() -> None:
    rng = np.random.default_rng(0)
    frechet._frechet_of_cells.clear_cache()
    for n in range(2, 60):
        scfid(rng.normal(size=(n, 6)), rng.normal(size=(61 - n, 6)))
    assert frechet._frechet_of_cells._cache_size() == 1


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least 2 real cells"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 dimensions and generated cells 4"),
        (np.zeros(5), np.zeros((5, 3)), r"\[cells, dimensions\]"),
        (np.zeros((5, 3)), np.array([[0.0] * 3, [0, np.nan, 0]]), "generated holds NaN .* row 1"),
    ],
)
def test_bad_input_says_what_is_wrong(real: Any, generated: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scfid(real, generated)


def test_no_common_condition_is_an_error() -> None:
    cells = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(ValueError, match="same labels"):
        scfid_by_condition(cells, cells, ["a"] * 4, ["b"] * 4)
    with pytest.raises(ValueError, match="one label for each of 4"):
        scfid_by_condition(cells, cells, ["a"] * 3, ["a"] * 4)
    with pytest.raises(ValueError, match="min_cells"):
        scfid_by_condition(cells, cells, ["a"] * 4, ["a"] * 4, min_cells=1)
