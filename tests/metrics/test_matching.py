"""FOSCTTM against a direct count over all pairs."""

from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from c2s_jax.metrics import foscttm, foscttm_by_direction


def embeddings(n: int = 70, noise: float = 1.0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(n)
    left = rng.normal(size=(n, 8)) + 3
    return left, left + noise * rng.normal(size=left.shape)


def direct(distances: np.ndarray[Any, Any], groups: Any) -> tuple[float, float]:
    """Over all pairs, as GLUE's ``foscttm`` counts: strictly closer, divided by n."""
    wrong = np.asarray(groups)[:, None] != np.asarray(groups)
    own = np.diag(distances)
    return (
        float(((distances < own[:, None]) & wrong).mean(1).mean()),
        float(((distances < own[None, :]) & wrong).mean(0).mean()),
    )


@pytest.mark.parametrize("rows", [16, 1024])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_agrees_with_the_direct_count(metric: Any, rows: int) -> None:
    left, right = embeddings()
    want = direct(cdist(left, right, metric), range(70))
    assert foscttm_by_direction(left, right, metric=metric, rows=rows) == pytest.approx(want, abs=1e-7)
    assert foscttm(left, right, metric=metric) == pytest.approx(np.mean(want), abs=1e-7)
    assert want[0] != want[1]


def test_cells_of_one_bulk_sample_are_no_wrong_match() -> None:
    cells, _ = embeddings()
    groups = np.arange(70) // 10
    bulk = np.array([cells[groups == g].mean(0) for g in groups])
    want = direct(cdist(cells, bulk, "cosine"), groups)
    assert foscttm_by_direction(cells, bulk, groups=groups) == pytest.approx(want, abs=1e-7)
    alone = foscttm_by_direction(cells, bulk)
    assert want[1] < alone[1]


def test_known_values() -> None:
    left, right = embeddings(200, noise=0.01)
    assert foscttm(left, right) < 0.01
    rng = np.random.default_rng(0)
    assert foscttm(rng.normal(size=(300, 8)), rng.normal(size=(300, 8))) == pytest.approx(0.5, abs=0.03)
    # A tie is not closer.
    assert foscttm(np.ones((9, 3)), np.ones((9, 3))) == 0.0
    # Length matters to one metric only.
    scaled = left * np.linspace(1, 5, len(left))[:, None]
    assert foscttm(scaled, right) == foscttm(left, right)
    assert foscttm(scaled, right, metric="euclidean") > 0.2


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), "3 rows and right 4"),
        (np.ones((3, 2)), np.diag([1.0, 1.0, 0.0])[:, :2], "right row 2 is 0"),
    ],
)
def test_bad_embeddings_say_what_is_wrong(left: Any, right: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        foscttm(left, right)
