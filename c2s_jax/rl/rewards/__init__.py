"""Rewards: functions of completions, named in ``combine.REWARDS`` or given by import path."""

from c2s_jax.rl.rewards.base import Completions, Reward, World
from c2s_jax.rl.rewards.combine import REWARDS, Rewards, Scored

__all__ = ["REWARDS", "Completions", "Reward", "Rewards", "Scored", "World"]
