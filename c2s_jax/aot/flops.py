"""FLOPs that a model needs a token, counted from its shapes; what no program can do without."""

import math
from functools import lru_cache

import numpy as np
from flax import nnx

from c2s_jax.models import Decoder, ModelConfig, make_model
from c2s_jax.models.linear import Linear


def visible_keys(time: int, window: int | None) -> float:
    """Mean number of keys that a query of a row of ``time`` tokens sees, itself included."""
    seen = np.arange(1, time + 1)
    return float((seen if window is None else np.minimum(seen, window)).mean())


def mean_visible_keys(config: ModelConfig, time: int) -> float:
    """``visible_keys``, mean over the model's layers."""
    layers = _abstract(config).blocks.layers
    return sum(visible_keys(time, layer.window) for layer in layers) / len(layers)


def forward_flops_per_token(config: ModelConfig, time: int) -> float:
    """Of one forward pass over a row of ``time`` tokens that is one example.

    Matrix products only, a multiplication and an addition apart: two a parameter that multiplies (the output table
    included, the look-up of embeddings not), and four a layer, head dimension, head and key that a query sees.
    """
    kernels = [math.prod(m.kernel.shape) for _, m in nnx.iter_modules(_abstract(config)) if isinstance(m, Linear)]
    products = sum(kernels) + config.vocab_size * config.embed_dim
    attention = config.num_layers * config.num_heads * config.head_dim * mean_visible_keys(config, time)
    return 2.0 * products + 4.0 * attention


def training_flops_per_token(config: ModelConfig, time: int, *, frozen: bool = False) -> float:
    """Of forward and backward: three times the forward pass; twice it where the weights are frozen under an adapter."""
    return forward_flops_per_token(config, time) * (2.0 if frozen else 3.0)


@lru_cache(maxsize=8)
def _abstract(config: ModelConfig) -> Decoder:
    return nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0)))
