"""Sampling on device."""

from c2s_jax.generation.cells_grammar import CellsGrammar
from c2s_jax.generation.drafts import GeneDrafts
from c2s_jax.generation.grammar import GeneGrammar
from c2s_jax.generation.labels import LabelScorer, LabelScores, answer_tokens
from c2s_jax.generation.sampler import Sampler, Samples
from c2s_jax.generation.sampling import Sampling
from c2s_jax.generation.slots import SlotSampler
from c2s_jax.generation.stop_strings import StopStrings

__all__ = [
    "CellsGrammar",
    "GeneDrafts",
    "GeneGrammar",
    "LabelScorer",
    "LabelScores",
    "Sampler",
    "Samples",
    "Sampling",
    "SlotSampler",
    "StopStrings",
    "answer_tokens",
]
