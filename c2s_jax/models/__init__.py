"""Language models in Flax NNX."""

from c2s_jax.models.cache import Cache
from c2s_jax.models.gemma2 import Gemma2, Gemma2Config, num_parameters

__all__ = ["Cache", "Gemma2", "Gemma2Config", "num_parameters"]
