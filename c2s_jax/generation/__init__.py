"""Sampling on device."""

from c2s_jax.generation.drafts import GeneDrafts
from c2s_jax.generation.grammar import GeneGrammar
from c2s_jax.generation.labels import LabelScorer, LabelScores, answer_tokens
from c2s_jax.generation.sampler import Sampler, Samples
from c2s_jax.generation.sampling import Sampling
from c2s_jax.generation.slots import SlotSampler

__all__ = [
    "GeneDrafts",
    "GeneGrammar",
    "LabelScorer",
    "LabelScores",
    "Sampler",
    "Samples",
    "Sampling",
    "SlotSampler",
    "answer_tokens",
]
