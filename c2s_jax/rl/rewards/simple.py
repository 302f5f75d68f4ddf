"""Rewards that need nothing but the completion and its reference."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.rl.rewards.base import Completions, Reward, World


def valid_genes(world: World) -> Reward:
    """Share of a sentence's words that are genes and no repeats; 0 for an empty one."""

    def reward(completions: Completions) -> NDArray[np.float64]:
        reports = [report for _, report in completions.repaired]
        return np.array([(r.n_valid - r.n_duplicate) / max(r.n_words, 1) for r in reports])

    return reward


def gene_overlap(world: World) -> Reward:
    """Share of the reference's genes that the sentence has; 0 where the reference has none."""

    def reward(completions: Completions) -> NDArray[np.float64]:
        pairs = zip(completions.genes, completions.wanted_genes)
        return np.array([len(np.intersect1d(a, b, assume_unique=True)) / max(len(b), 1) for a, b in pairs])

    return reward


def exact_match(world: World) -> Reward:
    """1 where the answer is the reference, whatever its case; else 0."""

    def reward(completions: Completions) -> NDArray[np.float64]:
        return np.array([float(a.casefold() == b.casefold()) for a, b in zip(completions.answers, completions.wanted)])

    return reward


def finished(world: World) -> Reward:
    """1 for a completion that ended by itself, 0 for one that the limit of tokens ended."""
    return lambda completions: 1.0 - completions.truncated


def gene_count(world: World) -> Reward:
    """How near the number of distinct genes is to the reference's: 1 if equal, 0 if off by all of it or more."""

    def reward(completions: Completions) -> NDArray[np.float64]:
        pairs = zip(completions.genes, completions.wanted_genes)
        return np.array([max(0.0, 1 - abs(len(a) - len(b)) / max(len(b), 1)) for a, b in pairs])

    return reward
