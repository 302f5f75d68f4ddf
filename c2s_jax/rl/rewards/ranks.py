"""Rewards that compare the order of genes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.metrics import kendall_tau_b
from c2s_jax.rl.rewards.base import Completions, Reward, World


def kendall_tau(world: World, *, genes: str = "") -> Reward:
    """Kendall's tau-b between the order of some genes in a sentence and in its reference.

    The paper's reward for L1000 profiles, there on the 40 genes of apoptosis. Genes that a sentence lacks share the
    lowest rank; a sentence with none of them gets 0.

    Parameters
    ----------
    genes
        Which, see ``chosen_genes``; by default all.
    """
    ids = chosen_genes(world.corpus, genes)
    column = np.full(len(world.corpus.genes), -1, np.int64)
    column[ids] = np.arange(len(ids))

    def scores(lists: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        out = np.full((len(lists), len(ids)), -len(column), np.int32)
        for row, cell in zip(out, lists):
            at = column[cell]
            row[at[at >= 0]] = -np.flatnonzero(at >= 0)
        return out

    def reward(completions: Completions) -> NDArray[np.float64]:
        return kendall_tau_b(scores(completions.genes), scores(completions.wanted_genes))

    return reward
