"""Adapters that bite, for tests."""

import jax.numpy as jnp
import numpy as np

from c2s_jax.models import Decoder, lora


def randomize(model: Decoder, seed: int = 1) -> None:
    """Fill A and B, which starts at zero, with random numbers."""
    rng = np.random.default_rng(seed)
    for linear in lora.adapted(model):
        for p in (linear.lora_a, linear.lora_b):
            assert p is not None
            p[...] = jnp.asarray(0.3 * rng.standard_normal(p.get_value().shape), jnp.float32)
