"""Sampling on device."""

from c2s_jax.generation.sampler import Sampler, Samples
from c2s_jax.generation.sampling import Sampling

__all__ = ["Sampler", "Samples", "Sampling"]
