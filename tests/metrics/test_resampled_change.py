"""Changes of weighted cells against those of cells as they are, and against cells that are repeated."""

import numpy as np
import pytest

from c2s_jax import metrics
from c2s_jax.metrics import CHANGE_SCORES, MeasuredChange, Profiles

G, K = 60, 12


def population(n: int, seed: int, strength: float) -> np.ndarray:
    """Log expression of a few dozen genes, one of which is never expressed."""
    effect = np.linspace(1.5, -1, G) * (np.arange(G) % 3 == 0)
    out = np.random.default_rng(seed).normal(2, 0.9, (n, G)) + strength * effect
    out[:, -1] = 0
    return out.astype(np.float32)


REAL, MADE, CONTROL = population(40, 0, 1), population(30, 1, 0.3), population(50, 2, 0)


def scores(*weights: np.ndarray, made: np.ndarray = MADE) -> dict[str, np.ndarray]:
    real, own, control = (Profiles.of(x, w) for x, w in zip((REAL, made, CONTROL), weights))
    return MeasuredChange(real, control, K).scores(own)


def expected(real: np.ndarray, made: np.ndarray, control: np.ndarray) -> dict[str, float]:
    """By the functions for single populations, whose genes are scanpy's."""
    top = metrics.de_genes(real, control)[:K]
    every = metrics.delta_correlation(real, made, control)
    few = metrics.delta_correlation(real[:, top], made[:, top], control[:, top])
    shared = metrics.de_overlap(real, made, control, k=K)
    return dict(zip(CHANGE_SCORES, (every.pearson, every.spearman, few.pearson, few.spearman, shared)))


def test_even_weights_are_the_cells_themselves() -> None:
    found = scores(*(np.full((2, len(x)), 1 / len(x)) for x in (REAL, MADE, CONTROL)))
    for name, value in expected(REAL, MADE, CONTROL).items():
        assert found[name] == pytest.approx([value, value], abs=1e-5), name
    assert 0 < found["de_overlap"][0] < 1


def test_weights_are_as_repeating_cells() -> None:
    """Counts as weights: means are those of the repeated cells, variances too but for their n."""
    rng = np.random.default_rng(5)
    counts = [rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=6) for x in (REAL, MADE, CONTROL)]
    found = scores(*(c / c.sum(1, keepdims=True) for c in counts))
    for i in range(6):
        repeated = [np.repeat(x, c[i], axis=0) for x, c in zip((REAL, MADE, CONTROL), counts)]
        for name, value in expected(*repeated).items():
            assert found[name][i] == pytest.approx(value, abs=1e-4), name


def test_a_constant_change_agrees_with_nothing() -> None:
    weights = [metrics.cell_weights(np.arange(n), resamples=3) for n in (40, 50, 50)]
    assert all((value == 0).all() for value in scores(*weights, made=CONTROL).values())
