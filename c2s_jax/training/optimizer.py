"""AdamW with a warm-up-cosine schedule, global-norm clipping and weight decay on matrices only."""

import math
from typing import Any

import optax
from flax import nnx

from c2s_jax.training.guards import guarded


def make_schedule(config: Any) -> optax.Schedule:
    """Linear warm-up to ``learning_rate``, cosine down to ``final_fraction`` of it at ``config.steps``."""
    o = config.optimizer
    if o.warmup_steps >= config.steps:
        raise ValueError(f"optimizer.warmup_steps={o.warmup_steps} must be below steps={config.steps}")
    return optax.warmup_cosine_decay_schedule(
        0.0, o.learning_rate, o.warmup_steps, config.steps, o.learning_rate * o.final_fraction
    )


def decay_mask(params: nnx.State) -> Any:
    """True for weights that decay: every parameter but those of norms and biases."""

    def one(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        return variable.replace(path[-1] != "bias" and "norm" not in variable.get_metadata("axes"))

    return nnx.map_state(one, params)


def make_optimizer(config: Any) -> optax.GradientTransformation:
    """AdamW of ``config.optimizer`` behind ``config.guards``; moments are float32 like the master weights."""
    o, guards = config.optimizer, config.guards
    optimizer = optax.chain(
        optax.clip_by_global_norm(o.clip_norm),
        optax.adamw(make_schedule(config), b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay, mask=decay_mask),
    )
    spike_factor = math.inf if guards.spike == "off" else guards.spike_factor
    return guarded(optimizer, spike_factor=spike_factor, window=guards.window)
