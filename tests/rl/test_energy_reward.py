"""The energy score as a reward: a policy that follows it ends at the real cells' distribution."""

import numpy as np
import pytest
from scipy.stats import energy_distance

from c2s_jax.rl.rewards import Rewards
from c2s_jax.rl.rewards.energy import energy_rewards
from tests.rl.test_rewards import GENES, dense, reconstructed


def test_its_mean_is_the_energy_distance() -> None:
    """In one dimension, where SciPy has it: 2 E|g − x| − E|g − g'| − E|x − x'|, over all pairs."""
    rng = np.random.default_rng(0)
    made, real = rng.normal(1.0, 2.0, size=(40, 1)), rng.normal(size=(60, 1))
    n = len(made)
    among = np.abs(made - made.T).sum() / n**2
    within = np.abs(real - real.T).mean()
    across = among * n / (n - 1) - energy_rewards(made, real).mean()
    np.testing.assert_allclose(2 * across - among - within, energy_distance(made[:, 0], real[:, 0]) ** 2, rtol=1e-9)


def test_a_policy_that_follows_it_keeps_the_spread() -> None:
    """Probabilities over a line of places: the squared difference collapses to the mean, the energy score does not."""
    places = np.linspace(-3, 3, 31)[:, None]
    real = np.random.default_rng(1).normal(size=(400, 1))
    target = np.exp(-np.square(places[:, 0]) / 2)
    target /= target.sum()

    def learned(reward) -> np.ndarray:
        logits = np.zeros(len(places))
        for _ in range(4000):
            p = np.exp(logits - logits.max())
            p /= p.sum()
            r = reward(p)
            logits += 2.0 * p * (r - p @ r)  # the exact policy gradient
        return p

    across = np.abs(places - real.T).mean(1)
    among = np.abs(places - places.T)
    energy = learned(lambda p: among @ p - across)
    squared = learned(lambda p: -np.square(places - real.T).mean(1))
    spread = [np.sqrt(p @ np.square(places[:, 0]) - (p @ places[:, 0]) ** 2) for p in (energy, squared)]
    assert spread[0] == pytest.approx(real.std(), rel=0.1)
    assert spread[1] < 0.35
    half = learned(lambda p: 0.5 * among @ p - across)  # the score itself as a reward is too narrow
    assert np.sqrt(half @ np.square(places[:, 0])) < 0.8 * spread[0]


def test_by_condition_and_genes(corpus, completions) -> None:
    """Completions about other conditions do not matter."""
    texts = ["IFI6 MX1 ACTB", "MX1 ISG15", "ISG15 IFI6 ACTB CD3D", "CD3D ACTB", "CD8A CD3D", "ACTB NKG7 CD3D"]
    found = completions(texts, [1, 3, 1, 0, 0, 2])  # T cells, stimulated and not
    names = ("CD3D", "IFI6", "ISG15", "MX1")
    got = Rewards({"cell_energy": {"genes": ",".join(names)}}, found.world)(found).total
    columns = [GENES.index(name) for name in names]
    for rows, same in (([0, 1, 2], [1, 3]), ([3, 4, 5], [0, 2])):
        real = dense(corpus, same)[:, columns]
        made = np.stack([reconstructed(texts[i].split()) for i in rows])[:, columns]
        for i, row in enumerate(rows):
            others = np.delete(made, i, axis=0)
            want = np.linalg.norm(others - made[i], axis=1).mean() - np.linalg.norm(real - made[i], axis=1).mean()
            np.testing.assert_allclose(got[row], want / 2, rtol=1e-3, atol=1e-3)


def test_settings_and_too_few(completions) -> None:
    found = completions(["CD3D"], [0])
    with pytest.raises(ValueError, match="real_cells=0 must be at least 1"):
        Rewards({"cell_energy": {"real_cells": 0}}, found.world)
    with pytest.raises(ValueError, match="at least 2 completions about a condition, got 1"):
        Rewards({"cell_energy": {}}, found.world)(found)
