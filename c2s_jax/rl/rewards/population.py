"""Rewards of a population: how near the completions about a condition, taken together, are to its real cells."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.data.ragged import evenly
from c2s_jax.metrics import Moments
from c2s_jax.rl.rewards.base import Completions, Reward, World
from c2s_jax.rl.rewards.cells import CONDITION, RealCells

MOST_CELLS = 8192  # from which the space of comparison is found


def cell_scfid(
    world: World, *, genes: str = "", condition: Sequence[str] = CONDITION, components: int = 16, encoder: str = ""
) -> Reward:
    """Minus the scFID between a phase's completions about a condition and its real cells, shared out among them.

    Completion i of n gets the jackknife pseudo-value ``-n F + (n - 1) F_i``, F being the distance of all n and F_i that
    of the others: what it does to the distance, whatever n. Their mean is ``-F`` less its bias of first order
    (Quenouille 1956, Biometrika 43:353). Unlike the squared difference from single cells, it does not reward
    alikeness: spread is part of the distance.

    Parameters
    ----------
    genes
        Which genes are compared, see ``chosen_genes``; by default all.
    condition
        Fields in which cells agree that are of the same condition.
    components
        Principal components of the real cells of the split, in which the distance is measured; far fewer than there are
        completions about a condition, or covariances tell little.
    encoder
        Folder of an scGPT: its embeddings are compared. By default log expression is.

    Notes
    -----
    Nothing about it is random: a phase's completions determine it. A completion about a condition of one real cell has
    no reward (NaN). Formula and estimator of the distance: ``metrics.scfid``.
    """
    if components < 1:
        raise ValueError(f"cell_scfid: components={components} must be at least 1")
    real = RealCells(world, chosen_genes(world.corpus, genes), condition, encoder)
    space = Space(real, components)

    def reward(completions: Completions) -> NDArray[np.float64]:
        made = space.of(real.represent(real.reconstruct(completions), completions.numbers))
        out = np.full(len(completions), np.nan)
        for number, rows in real.by_condition(completions.cells):
            if len(rows) < 3:
                raise ValueError(f"cell_scfid needs at least 3 completions about a condition, got {len(rows)}")
            target = space.moments(number)
            if target.n > 1:
                out[rows] = pseudo_values(target, made[rows])
        return out

    return reward


class Space:
    """Principal components of the real cells of a split, and the moments of conditions in them."""

    def __init__(self, real: RealCells, components: int):
        self._real, self._known = real, dict[int, Moments]()
        cells = real.represented(evenly(real.count, MOST_CELLS))
        self._mean = cells.mean(0, dtype=np.float64)
        centred = cells - self._mean
        vectors = np.linalg.eigh(centred.T @ centred)[1]
        self._axes = vectors[:, ::-1][:, :components]

    def of(self, represented: NDArray[np.floating]) -> NDArray[np.float64]:
        """Cells [n, d] in these components, float64 [n, components]."""
        return (represented - self._mean) @ self._axes

    def moments(self, condition: int) -> Moments:
        """Of all real cells of a condition."""
        if condition not in self._known:
            cells = self.of(self._real.represented(self._real.of_condition(condition)))
            centred = cells - cells.mean(0)
            self._known[condition] = Moments(len(cells), cells.mean(0), centred.T @ centred)
        return self._known[condition]


def pseudo_values(real: Moments, made: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jackknife pseudo-values of minus the Fréchet distance of n cells [n, d], at least 3, from others; float64 [n]."""
    n = len(made)
    mean, centred = made.mean(0), made - made.mean(0)
    scatter = centred.T @ centred
    without = scatter - (n / (n - 1)) * centred[:, :, None] * centred[:, None, :]
    whole = _frechet(real, mean[None], scatter[None] / (n - 1))
    others = _frechet(real, mean - centred / (n - 1), without / (n - 2))
    return (n - 1) * others - n * whole


def _frechet(real: Moments, means: NDArray[np.float64], covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of B Gaussians, means [B, d] and covariances [B, d, d], from the real cells' one; float64 [B]."""
    values, vectors = np.linalg.eigh(real.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    between = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances @ root), 0)).sum(1)
    spread = np.trace(real.covariance) + np.trace(covariances, axis1=1, axis2=2)
    return np.square(means - real.mean).sum(1) + spread - 2 * between
