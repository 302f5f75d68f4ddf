"""scFID as a reward: against the distance computed anew without each completion."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from c2s_jax.metrics import Moments
from c2s_jax.rl.rewards import Rewards
from c2s_jax.rl.rewards.population import pseudo_values
from tests.rl.test_rewards import GENES, dense, reconstructed


def distance(real: np.ndarray, made: np.ndarray) -> float:
    """The textbook's formula, by SciPy's square root of a matrix."""
    a, b = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    root = np.real(sqrtm(a @ b))
    return float(np.sum((real.mean(0) - made.mean(0)) ** 2) + np.trace(a + b - 2 * root))


def moments(cells: np.ndarray) -> Moments:
    centred = cells - cells.mean(0)
    return Moments(len(cells), cells.mean(0), centred.T @ centred)


def test_pseudo_values() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(60, 3)), rng.normal(0.5, 1.5, size=(9, 3))
    n, found = len(made), pseudo_values(moments(real), made)
    for i in range(n):
        without = distance(real, np.delete(made, i, axis=0))
        np.testing.assert_allclose(found[i], (n - 1) * without - n * distance(real, made), rtol=1e-6)


def test_what_is_far_or_all_alike_is_punished() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(200, 2))
    made = rng.normal(size=(40, 2))
    made[0] = 6.0
    found = pseudo_values(moments(real), made)
    assert found.argmin() == 0
    same = np.concatenate([np.zeros((39, 2)), [[1.0, -1.0]]])  # the only one that adds to the spread gets the most
    assert pseudo_values(moments(real), same).argmax() == 39
    assert found.mean() > pseudo_values(moments(real), same).mean()


def test_by_condition_and_genes(corpus, completions) -> None:
    """Completions about other conditions do not matter; all principal components keep the distance."""
    texts = ["IFI6 MX1 ACTB", "MX1 ISG15", "ISG15 IFI6 ACTB CD3D", "CD3D ACTB", "CD8A CD3D", "ACTB NKG7 CD3D"]
    found = completions(texts, [1, 3, 1, 0, 0, 2])  # T cells, stimulated and not
    settings = {"genes": "CD3D,IFI6,ISG15,MX1", "components": 4}
    got = Rewards({"cell_scfid": settings}, found.world)(found).total
    columns = [GENES.index(name) for name in settings["genes"].split(",")]
    for rows, same in (([0, 1, 2], [1, 3]), ([3, 4, 5], [0, 2])):
        real = dense(corpus, same)[:, columns]
        made = np.stack([reconstructed(texts[i].split()) for i in rows])[:, columns]
        for i, row in enumerate(rows):
            want = 2 * distance(real, np.delete(made, i, axis=0)) - 3 * distance(real, made)
            np.testing.assert_allclose(got[row], want, rtol=1e-3, atol=1e-3)


def test_settings_and_too_few(completions) -> None:
    found = completions(["CD3D", "ACTB"], [0, 0])
    with pytest.raises(ValueError, match="components=0 must be at least 1"):
        Rewards({"cell_scfid": {"components": 0}}, found.world)
    with pytest.raises(ValueError, match="at least 3 completions about a condition, got 2"):
        Rewards({"cell_scfid": {}}, found.world)(found)
