"""The energy score as a reward: near to the real cells of a condition, and as far apart as they are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.data.ragged import evenly
from c2s_jax.rl.rewards.base import Completions, Reward, World
from c2s_jax.rl.rewards.cells import CONDITION, RealCells


def cell_energy(
    world: World, *, genes: str = "", condition: Sequence[str] = CONDITION, real_cells: int = 512, encoder: str = ""
) -> Reward:
    """How far a completion is from the phase's other completions about its condition, less how far from its real cells.

    Distances are Euclidean, divided by √D, and means of them are taken. In expectation, raising this reward of each
    completion lowers the energy distance between generated and real cells, 2 E|g − x| − E|g − g'| − E|x − x'|, which is
    0 only where they are distributed alike (Székely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018; as a score: Gneiting
    & Raftery 2007, doi:10.1198/016214506000001437, section 4.2): the gradient of E|g − g'| / 2 by a policy gives each
    of the two cells half of it, and both are completions. Where cells are distributed alike, every completion has the
    same reward on the average, 0, so that there is nothing to learn. The squared difference of ``cell_mse`` has its
    optimum at the mean cell instead.

    Parameters
    ----------
    genes
        Which genes are compared, see ``chosen_genes``; by default all.
    condition
        Fields in which cells agree that are of the same condition.
    real_cells
        So many real cells of a condition are compared with, evenly over its cells.
    encoder
        Folder of an scGPT: its embeddings are compared. By default log expression is.

    Notes
    -----
    Nothing about it is random: a phase's completions determine it.
    """
    if real_cells < 1:
        raise ValueError(f"cell_energy: real_cells={real_cells} must be at least 1")
    real = RealCells(world, chosen_genes(world.corpus, genes), condition, encoder)
    known: dict[int, NDArray[np.float32]] = {}

    def target(number: int) -> NDArray[np.float32]:
        if number not in known:
            cells = real.of_condition(number)
            known[number] = real.represented(cells[evenly(len(cells), real_cells)])
        return known[number]

    def reward(completions: Completions) -> NDArray[np.float64]:
        made = real.represent(real.reconstruct(completions), completions.numbers)
        out = np.empty(len(completions))
        for number, rows in real.by_condition(completions.cells):
            if len(rows) < 2:
                raise ValueError(f"cell_energy needs at least 2 completions about a condition, got {len(rows)}")
            out[rows] = energy_rewards(made[rows], target(number))
        return out

    return reward


def energy_rewards(made: NDArray[np.floating], real: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean distance to the other made cells less that to the real ones, by √D; float64 [n] for cells [n, D], n > 1."""
    among, across = cdist(made, made), cdist(made, real)
    return (among.sum(1) / (len(made) - 1) - across.mean(1)) / np.sqrt(made.shape[1])
