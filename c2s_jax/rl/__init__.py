"""Reinforcement learning from biological rewards: GRPO on the devices that hold the weights."""

from c2s_jax.rl.advantages import Advantages, group_advantages
from c2s_jax.rl.options import GRPOOptions
from c2s_jax.rl.step import make_logprobs, make_update

__all__ = ["Advantages", "GRPOOptions", "group_advantages", "make_logprobs", "make_update"]
