"""Streamed moments against NumPy, and scFID of them against SciPy."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from c2s_jax.metrics import Moments, frechet_distance, scfid_of_moments
from tests.metrics.populations import POPULATIONS, population, textbook

# SciPy warns of singular products; their trace is right all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Matrix is singular")


@pytest.mark.parametrize("x64", [True, False])
def test_batches_of_any_size_make_the_moments_of_all(x64: bool) -> None:
    """Batches of different means far from the origin, where sums of squares would lose every digit."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(700, 11)) @ rng.normal(size=(11, 11)) + 1e3 + np.arange(700)[:, None] / 50
    with jax.enable_x64(x64):
        got = Moments.of_batches(np.split(cells, [1, 5, 260, 300]))
    rel = 1e-12 if x64 else 2e-4  # of float32 cells at 1e3, whose own rounding is 3e-5
    assert got.n == 700
    np.testing.assert_allclose(got.mean, cells.mean(0), rtol=1e-14 if x64 else 1e-7)
    np.testing.assert_allclose(got.covariance, np.cov(cells.T), atol=rel * np.cov(cells.T).max())


def test_order_of_merging_does_not_matter() -> None:
    a, b, c = (Moments.of(np.random.default_rng(i).normal(i, 1, (30 + i, 4))) for i in range(3))
    left, right = a.merge(b).merge(c), c.merge(a.merge(b))
    assert left.n == right.n == 93
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=1e-12)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_cells_stay_where_they_are(kind: AxisType) -> None:
    cells = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    mesh = jax.make_mesh((8,), ("cells",), axis_types=(kind,))
    sharded = jax.device_put(cells, NamedSharding(mesh, PartitionSpec("cells")))
    got = Moments.of(sharded)
    np.testing.assert_allclose(got.covariance, np.cov(cells.T), atol=1e-6)
    np.testing.assert_allclose(got.mean, cells.mean(0), atol=1e-7)


@pytest.mark.parametrize("name", POPULATIONS)
def test_exact_moments_agree_with_scipy(name: str) -> None:
    real, generated = population(name)
    got = frechet_distance(real.mean(0), np.cov(real.T), generated.mean(0), np.cov(generated.T))
    assert got == pytest.approx(textbook(real, generated), rel=1e-6)


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(("x64", "bound"), [(True, 1e-6), (False, 1e-4)])
def test_streamed_moments_agree_with_scipy(name: str, x64: bool, bound: float) -> None:
    """In float32 the covariance is what is rounded: small eigenvalues lose digits that the cells still had."""
    real, generated = population(name)
    with jax.enable_x64(x64):
        moments = [Moments.of_batches(np.array_split(cells, 2)) for cells in (real, generated)]
    assert scfid_of_moments(*moments) == pytest.approx(textbook(real, generated), rel=bound)


def test_bad_batches_say_what_is_wrong() -> None:
    cells = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="no batch"):
        Moments.of_batches([])
    with pytest.raises(ValueError, match="3 and 2 dimensions"):
        Moments.of(cells).merge(Moments.of(cells[:, :2]))
    with pytest.raises(ValueError, match="at least 2 cells"):
        _ = Moments.of(cells[:1]).covariance
    with pytest.raises(ValueError, match="NaN or infinity"):
        Moments.of(jax.numpy.asarray(cells).at[2, 1].set(np.inf))
