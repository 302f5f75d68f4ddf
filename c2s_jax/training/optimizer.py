"""AdamW or Adafactor with a warm-up-cosine schedule, global-norm clipping and weight decay on matrices only."""

import math
from typing import Any

import jax
import jax.numpy as jnp
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
    """The optimizer of ``config.optimizer`` behind ``config.guards``; weights and arithmetic are float32 throughout.

    "adamw" keeps two moments a parameter in ``moment_dtype``. "adafactor" (Shazeer & Stern 2018, arXiv:1804.04235)
    keeps means of squared gradients by row and by column, and no momentum; step sizes are those of the schedule, with
    updates clipped to a root mean square of 1 (its section 6).

    Raises
    ------
    ValueError
        An unknown optimizer or dtype; bfloat16 moments with a ``b2`` that their 8 bits cannot follow.
    """
    o, guards = config.optimizer, config.guards
    decay = optax.add_decayed_weights(o.weight_decay, mask=decay_mask)
    update = optax.chain(_scaled(o), decay, optax.scale_by_learning_rate(make_schedule(config)))
    spike_factor = math.inf if guards.spike == "off" else guards.spike_factor
    clip = optax.clip_by_global_norm(o.clip_norm) if o.clip_norm else optax.identity()
    return guarded(optax.chain(clip, update), spike_factor=spike_factor, window=guards.window)


def _scaled(o: Any) -> optax.GradientTransformation:
    """Gradients divided by their running size."""
    if o.name == "adafactor":
        return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    if o.name != "adamw":
        raise ValueError(f"optimizer.name={o.name!r} is not one of adamw, adafactor")
    adam = optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=o.eps)
    if o.moment_dtype == "float32":
        return adam
    if o.moment_dtype != "bfloat16":
        raise ValueError(f"optimizer.moment_dtype={o.moment_dtype!r} is not one of float32, bfloat16")
    if o.b2 > 0.99:  # a change below 1/256 of a bfloat16 number is lost
        raise ValueError(
            f"optimizer.b2={o.b2} changes a moment by less than bfloat16 can show; set optimizer.b2 to at most 0.99, "
            "or optimizer.moment_dtype=float32"
        )
    return stored_as(adam, jnp.bfloat16)


def stored_as(inner: optax.GradientTransformation, dtype: Any) -> optax.GradientTransformation:
    """``inner`` with the floating-point part of its state kept in ``dtype`` between steps, computed in float32."""

    def cast(state: Any, to: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def init(params: Any) -> Any:
        return cast(inner.init(params), dtype)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        updates, state = inner.update(updates, cast(state, jnp.float32), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(init, update)
