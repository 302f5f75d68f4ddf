"""Sharding constraints by logical axis name, resolved by the rules in force."""

import jax
from flax.core import spmd
from jax.sharding import PartitionSpec

WEIGHT = "weight:"  # before the axis names of parameters among the rules


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrain ``x`` to the sharding that the activation rules give to its logical ``axes``.

    The rules are those of the enclosing ``flax.core.spmd.logical_axis_rules`` context
    (``c2s_jax.parallel.activation_rules``); outside of one, or without a mesh, ``x`` is returned as it is.

    Parameters
    ----------
    x
        Any array.
    axes
        One logical name (or None) a dimension of ``x``.
    """
    rules = spmd.get_logical_axis_rules()
    if not rules:
        return x
    table = dict(rules)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(table[a] if a else None for a in axes)))


def constrain_weight(x: jax.Array, *axes: str) -> jax.Array:
    """Constrain a parameter, or its cast, to where the parameter rules put its logical ``axes``.

    Its gradient is constrained alike: it is summed by a reduce-scatter, never held whole.
    """
    return constrain(x, *(WEIGHT + a for a in axes))
