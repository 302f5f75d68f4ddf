"""Rewards for names of cell types."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.ontology import CellOntology
from c2s_jax.rl.rewards.base import Completions, Reward, World


def ontology_match(world: World, *, ontology: str, lineage: float = 0.5) -> Reward:
    """1 where answer and reference are one term of the Cell Ontology, however they are spelt.

    Parameters
    ----------
    ontology
        File of the ontology, ``cl.obo`` say, see ``CellOntology.load``.
    lineage
        What an answer gets that is an ancestor or a descendant of the reference: right, but not as specific, or more.
    """
    if not 0 <= lineage <= 1:
        raise ValueError(f"ontology_match: lineage={lineage} must be within [0, 1]")
    terms = CellOntology.load(ontology)
    known: dict[tuple[str, str], float] = {}

    def value(answer: str, wanted: str) -> float:
        found = terms.score([answer], [wanted])
        return lineage * found["lineage"] + (1 - lineage) * found["exact"]

    def reward(completions: Completions) -> NDArray[np.float64]:
        pairs = list(zip(completions.answers, completions.wanted))
        known.update({pair: value(*pair) for pair in set(pairs) - known.keys()})
        return np.array([known[pair] for pair in pairs])

    return reward
