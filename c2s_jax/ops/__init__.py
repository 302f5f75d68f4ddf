"""Numerical building blocks shared by every model: attention, rotary positions, token log-probabilities."""

from c2s_jax.ops.attention import BACKENDS, attend
from c2s_jax.ops.attention_choice import Choice, choose_backend
from c2s_jax.ops.attention_parts import KeyPart, attend_parts
from c2s_jax.ops.constrain import WEIGHT, constrain, constrain_weight
from c2s_jax.ops.embedding import look_up
from c2s_jax.ops.int8_product import int8_product
from c2s_jax.ops.logprob import token_logprobs
from c2s_jax.ops.rope import Rotation, rotate, rotation

__all__ = [
    "BACKENDS",
    "WEIGHT",
    "Choice",
    "KeyPart",
    "Rotation",
    "attend",
    "attend_parts",
    "choose_backend",
    "constrain",
    "constrain_weight",
    "int8_product",
    "look_up",
    "rotate",
    "rotation",
    "token_logprobs",
]
