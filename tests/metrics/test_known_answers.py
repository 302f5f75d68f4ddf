"""What the distances between populations must say where the answer is known, on real cells and on Gaussians."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import scanpy as sc
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA

from c2s_jax.metrics import mmd, scfid, wasserstein

Distance = Callable[[Any, Any], float]
DISTANCES: dict[str, Distance] = {
    "scfid": scfid,
    "mmd": partial(mmd, gammas="median"),
    "exact": wasserstein,
    "sinkhorn": partial(wasserstein, method="sinkhorn"),
    "sliced": partial(wasserstein, method="sliced"),
}


@pytest.fixture(scope="module")
def monocytes() -> np.ndarray[Any, Any]:
    """Log expression of the real cells of one type."""
    adata = sc.datasets.pbmc68k_reduced()
    return adata.raw.X[(adata.obs["bulk_labels"] == "CD14+ Monocyte").to_numpy()].toarray()


@pytest.fixture(scope="module")
def space(monocytes: np.ndarray[Any, Any]) -> PCA:
    return PCA(8, random_state=0).fit(monocytes)


@pytest.mark.parametrize("name", DISTANCES)
def test_identical_sets_are_at_distance_zero(name: str, monocytes: Any, space: PCA) -> None:
    cells = space.transform(monocytes)
    assert abs(DISTANCES[name](cells, cells)) < 1e-3 * DISTANCES[name](cells, cells + 3)


@pytest.mark.parametrize("name", DISTANCES)
def test_order_of_cells_does_not_matter(name: str, monocytes: Any, space: PCA) -> None:
    cells = space.transform(monocytes)
    order = np.random.default_rng(0).permutation(len(cells))
    want = DISTANCES[name](cells, cells * 1.5 + 0.3)
    assert DISTANCES[name](cells[order], cells * 1.5 + 0.3) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("damage", ["noise", "dropout"])
def test_distance_grows_with_damage(name: str, damage: str, monocytes: Any, space: PCA) -> None:
    rng = np.random.default_rng(0)
    cells, noise, chance = space.transform(monocytes), rng.normal(size=monocytes.shape), rng.random(monocytes.shape)
    found = []
    for amount in (0.1, 0.3, 0.6, 0.9):
        damaged = monocytes + amount * noise if damage == "noise" else monocytes * (chance > amount)
        found.append(DISTANCES[name](cells, space.transform(damaged)))
    assert 0 < found[0] < found[1] < found[2] < found[3]


def test_gaussians_have_the_distance_of_their_parameters() -> None:
    """Large samples: scFID and the squared W2 both estimate the closed form (Dowson and Landau 1982)."""
    rng = np.random.default_rng(0)
    mix = np.diag([2.0, 1.0, 0.5]), np.array([[1.0, 0.5, 0], [0, 1.5, 0], [0, 0.3, 0.8]])
    shift = np.array([1.0, -0.5, 0.0])
    left, right = rng.normal(size=(20_000, 3)) @ mix[0], rng.normal(size=(20_000, 3)) @ mix[1] + shift
    a, b = (m.T @ m for m in mix)
    want = shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b).real)
    assert scfid(left, right) == pytest.approx(want, rel=0.03)
    assert wasserstein(left[:1500], right[:1500]) ** 2 == pytest.approx(want, rel=0.15)
    # Axes apart: the distance of means and of standard deviations.
    assert scfid(left, left * [1, 3, 1] + [0, 0, 2]) == pytest.approx(4 + (2 * 1.0) ** 2, rel=0.03)


def test_mmd_of_gaussians() -> None:
    """``E exp(-γ |x - y|²)`` of N(0, 1) and N(m, 1) is ``(1 + 4γ)^(-1/2) exp(-γ m² / (1 + 4γ))`` in one dimension."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1)) + 1.5
    gamma = 0.5
    width = 1 + 4 * gamma
    want = 2 / np.sqrt(width) * (1 - np.exp(-gamma * 1.5**2 / width))
    assert mmd(left, right, gammas=[gamma], estimator="unbiased") == pytest.approx(want, rel=0.05)


def test_reconstructed_values_have_fewer_ties_than_counts() -> None:
    """The tie trap: cells set beside their own sentences are not at distance 0, and closer to no other real cells."""
    from c2s_jax.cells import GeneVocabulary, cell_sentences, fit_rank_expression

    adata = sc.datasets.pbmc68k_reduced()
    adata = adata.raw.to_adata()[adata.obs["bulk_labels"] == "CD14+ Monocyte"].copy()
    real = adata.X.toarray()
    genes = GeneVocabulary(adata.var_names)
    sentences = [s.split() for s in cell_sentences(adata)]
    through = fit_rank_expression(adata).reconstruct([genes.ids(s) for s in sentences], genes).toarray()

    def ties(values: Any) -> float:
        return float(np.mean([1 - len(np.unique(x[x > 0])) / (x > 0).sum() for x in values]))

    space = PCA(8, random_state=0).fit(real)
    own = scfid(space.transform(real), space.transform(through))
    halves = [
        scfid(*np.array_split(space.transform(real)[rng.permutation(len(real))], 2))
        for rng in map(np.random.default_rng, range(5))
    ]
    assert ties(real) > 0.3
    assert ties(through) < 0.01
    assert own > 0.1 * np.mean(halves)
