"""Silhouette and batch mixing against scikit-learn and known answers."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score

from c2s_jax.metrics import batch_mixing, silhouette


def test_silhouette() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 30)
    cells = rng.normal(size=(90, 4)) + 3 * np.eye(4)[np.repeat([0, 1, 2], 30)]
    assert silhouette(cells, labels) == pytest.approx(silhouette_score(cells, labels), abs=1e-5)
    assert silhouette(cells, labels, max_cells=60) == pytest.approx(silhouette(cells, labels), abs=0.1)
    with pytest.raises(ValueError, match="2 labels or more"):
        silhouette(cells, ["a"] * 90)


def test_batch_mixing() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [40, 40, 10])
    batches = np.where(np.arange(90) % 2, "x", "y")
    batches[80:] = "x"  # one batch: left out
    mixed = rng.normal(size=(90, 4)) + 5 * (labels == "a")[:, None]
    apart = mixed + 20 * (batches == "x")[:, None]
    by_hand = [np.mean(1 - np.abs(silhouette_samples(mixed[labels == x], batches[labels == x]))) for x in "ab"]
    assert batch_mixing(mixed, labels, batches) == pytest.approx(np.mean(by_hand), abs=1e-5)
    assert batch_mixing(mixed, labels, batches) > 0.85
    assert batch_mixing(apart, labels, batches) < 0.15
    with pytest.raises(ValueError, match="two batches"):
        batch_mixing(mixed, labels, np.full(90, "x"))
