"""Sharding constraints by logical axis name, resolved by the rules in force."""

import math

import jax
from flax.core import spmd
from jax.sharding import PartitionSpec

WEIGHT = "weight:"  # before the axis names of parameters among the rules
TIME = "time"


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrain ``x`` to the sharding that the activation rules give to its logical ``axes``.

    The rules are those of the enclosing ``flax.core.spmd.logical_axis_rules`` context
    (``c2s_jax.parallel.activation_rules``); outside of one, or without a mesh, ``x`` is returned as it is. A time
    axis that its mesh axis does not divide, such as the single token of a decoding step, stays whole.

    Parameters
    ----------
    x
        Any array.
    axes
        One logical name (or None) a dimension of ``x``.

    Raises
    ------
    ValueError
        Two of the axes lie on the same mesh axis.
    """
    rules = spmd.get_logical_axis_rules()
    if not rules:
        return x
    table = dict(rules)
    spec = [table[a] if a else None for a in axes]
    for i, axis in enumerate(axes):
        if axis == TIME and time_parts(x.shape[i]) == 1:
            spec[i] = None
    _refuse_collisions(axes, spec)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def constrain_weight(x: jax.Array, *axes: str) -> jax.Array:
    """Constrain a parameter, or its cast, to where the parameter rules put its logical ``axes``.

    Its gradient is constrained alike: it is summed by a reduce-scatter, never held whole.
    """
    return constrain(x, *(WEIGHT + a for a in axes))


def shards(axis: str) -> int:
    """Number of parts into which the rules in force cut a logical axis."""
    mesh = jax.sharding.get_abstract_mesh().shape
    return math.prod(mesh.get(a, 1) for a in mesh_axes(axis))


def time_parts(time: int) -> int:
    """Parts into which the rules in force cut rows of so many tokens; one where devices cannot share them equally."""
    parts = shards(TIME)
    return 1 if time % parts else parts


def mesh_axes(axis: str) -> tuple[str, ...]:
    """Mesh axes on which the rules in force put a logical axis."""
    rule = dict(spmd.get_logical_axis_rules() or ()).get(axis)
    return (rule,) if isinstance(rule, str) else rule or ()


def _refuse_collisions(axes: tuple[str | None, ...], spec: list[str | tuple[str, ...] | None]) -> None:
    taken: dict[str, str | None] = {}
    for axis, rule in zip(axes, spec):
        for mesh_axis in (rule,) if isinstance(rule, str) else rule or ():
            if mesh_axis in taken:
                raise ValueError(
                    f"activation {axes}: {taken[mesh_axis]!r} and {axis!r} both lie on mesh axis {mesh_axis!r}; "
                    "give one of them another rule in c2s_jax/parallel/rules.py"
                )
            taken[mesh_axis] = axis
