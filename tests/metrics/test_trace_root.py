"""The quick way to the Fréchet distance is exact, or says that it is not."""

import numpy as np
import pytest

from c2s_jax.metrics._trace_root import distance_by_eigenvalues
from tests.metrics.populations import POPULATIONS, population, textbook

pytestmark = pytest.mark.filterwarnings("ignore:Matrix is singular")


def distance(real: np.ndarray, generated: np.ndarray) -> float | None:
    return distance_by_eigenvalues(real.mean(0) - generated.mean(0), np.cov(real.T), np.cov(generated.T))


@pytest.mark.parametrize("name", POPULATIONS)
def test_agrees_with_scipy_or_gives_up(name: str) -> None:
    found = distance(*population(name))
    assert found is None or found == pytest.approx(textbook(*population(name)), rel=1e-7)
    assert name != "well-conditioned" or found is not None


def test_embeddings_of_many_dimensions() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(64, 64)))[0] * np.logspace(0, -2, 64)
    real, generated = rng.normal(size=(500, 64)) @ axes.T, rng.normal(size=(400, 64)) @ axes.T + 0.1
    assert distance(real, generated) == pytest.approx(textbook(real, generated), rel=1e-9)


@pytest.mark.parametrize("decades", [6, 9])
def test_gives_up_where_eigenvalues_are_rounding(decades: int) -> None:
    rng = np.random.default_rng(0)
    scale = np.logspace(0, -decades, 24)
    assert distance(rng.normal(size=(300, 24)) * scale, rng.normal(size=(300, 24)) * scale) is None


def test_gives_up_where_populations_nearly_agree() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 24))
    assert distance(real, real * (1 + 1e-5 * rng.normal(size=24))) is None
    assert distance(real, real) is None


def test_gives_up_on_fewer_cells_than_dimensions() -> None:
    rng = np.random.default_rng(0)
    assert distance(rng.normal(size=(20, 24)), rng.normal(size=(300, 24))) is None
