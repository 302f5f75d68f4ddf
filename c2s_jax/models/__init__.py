"""Language models in Flax NNX, and their files."""

import math
from typing import Any

import jax
from flax import nnx

from c2s_jax.models.architectures import ARCHITECTURES, ModelConfig, make_model
from c2s_jax.models.decoder import Decoder
from c2s_jax.models.export import load_export, save_export
from c2s_jax.models.gemma2 import Gemma2, Gemma2Config
from c2s_jax.models.gpt_neox import GPTNeoX, GPTNeoXConfig
from c2s_jax.models.hf import from_hf, to_hf
from c2s_jax.models.weights import load_model, load_weights


def num_parameters(model: nnx.Module | nnx.State) -> int:
    """Number of parameters of a model or of its state, concrete or abstract (``nnx.eval_shape``)."""
    state: Any = model if isinstance(model, nnx.State) else nnx.state(model, nnx.Param)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


__all__ = [
    "ARCHITECTURES",
    "Decoder",
    "GPTNeoX",
    "GPTNeoXConfig",
    "Gemma2",
    "Gemma2Config",
    "ModelConfig",
    "from_hf",
    "load_export",
    "load_model",
    "load_weights",
    "make_model",
    "num_parameters",
    "save_export",
    "to_hf",
]
