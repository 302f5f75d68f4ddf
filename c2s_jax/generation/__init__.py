"""Sampling on device."""

from c2s_jax.generation.grammar import GeneGrammar
from c2s_jax.generation.labels import LabelScorer, LabelScores, answer_tokens
from c2s_jax.generation.sampler import Sampler, Samples
from c2s_jax.generation.sampling import Sampling

__all__ = ["GeneGrammar", "LabelScorer", "LabelScores", "Sampler", "Samples", "Sampling", "answer_tokens"]
