"""scFID against SciPy's matrix square root, in float32 and float64."""

from typing import Any

import jax
import numpy as np
import pytest

from c2s_jax.metrics import frechet, scfid, scfid_by_condition, scfid_on_device
from tests.metrics.populations import POPULATIONS, population, textbook

# SciPy warns of singular products; their trace is right all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Matrix is singular")


@pytest.fixture(autouse=True, params=["eigenvalues on the host", "as on an accelerator"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "as on an accelerator":
        monkeypatch.setattr(frechet, "distance_by_eigenvalues", lambda *_: None)


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
def test_device_function_agrees_with_scipy(name: str) -> None:
    real, generated = population(name)
    offset = real.mean(0)
    got = scfid_on_device(np.float32(real - offset), np.float32(generated - offset))
    assert got == pytest.approx(textbook(real, generated), rel=1e-5)


@pytest.mark.parametrize(("n", "m"), [(9, 6), (40, 30), (40, 6)])
def test_gradient_agrees_with_finite_differences(n: int, m: int) -> None:
    """Also for fewer cells than dimensions (12), where the derivative of a decomposition is NaN."""
    rng = np.random.default_rng(n)
    real, generated = rng.normal(size=(n, 12)), rng.normal(size=(m, 12)) * 1.5 + 0.2
    with jax.enable_x64(True):
        by_real, by_generated = jax.grad(scfid_on_device, argnums=(0, 1))(real, generated)
        for step, gradient in (
            (rng.normal(size=real.shape), by_real),
            (rng.normal(size=generated.shape), by_generated),
        ):
            moved = [
                scfid_on_device(real + h * step, generated)
                if gradient is by_real
                else scfid_on_device(real, generated + h * step)
                for h in (1e-5, -1e-5)
            ]
            assert np.sum(gradient * step) == pytest.approx(float(moved[0] - moved[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(100, 181), (40, 200)])
def test_fewer_cells_than_many_dimensions(n: int, m: int) -> None:
    """Padded to 256 rows of 128 dimensions, a factor of rank n - 1 has no Cholesky decomposition."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(n, 128)), rng.normal(size=(m, 128)) + 0.1
    assert scfid(real, generated) == pytest.approx(textbook(real, generated), rel=1e-4)


def test_near_copies_keep_their_digits() -> None:
    """The distance is a millionth of the variance: a difference of traces in float32 would be noise."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 24))
    generated = real * (1 + 1e-3 * rng.normal(size=24))
    assert scfid(real, generated) == pytest.approx(textbook(real, generated), rel=1e-3)


@pytest.mark.parametrize("decades", [0, 2, 4, 9])
def test_factor_by_cholesky_and_where_that_fails(decades: int) -> None:
    rng = np.random.default_rng(decades)
    u, v = (np.linalg.qr(rng.normal(size=(n, 20)))[0] for n in (100, 20))
    cells = np.float32(u * np.logspace(0, -decades, 20) @ v.T)
    r = np.asarray(frechet._r_of_qr(cells), np.float64)
    np.testing.assert_allclose(r.T @ r, np.float64(cells).T @ cells, atol=2e-6)
    want = np.linalg.svd(np.float64(cells), compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(r, compute_uv=False), want, atol=2e-6)


def test_a_gene_subset_is_its_columns() -> None:
    real, generated = population("well-conditioned")
    genes = [3, 17, 5]
    got = scfid_by_condition(real[:, genes], generated[:, genes], ["a"] * len(real), ["a"] * len(generated))
    assert got.mean == pytest.approx(textbook(real[:, genes], generated[:, genes]), rel=1e-5)


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
