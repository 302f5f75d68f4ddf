"""Attention over rows whose time axis is spread over devices: each takes its queries and all keys."""

from collections.abc import Callable
from typing import Any

import jax
from flax.core import spmd
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from c2s_jax.ops.attention_kernels import KEYS, QUERIES, TOKENS
from c2s_jax.ops.constrain import mesh_axes

Run = Callable[[Array, Array, Array, Any, Any, Any], Array]
"""(queries, all keys, all values, ids of queries, ids of all keys, what else it needs) -> mixed values."""


def over_sequence(
    run: Run,
    q: Float[Array, "B T H E"],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
    ids: tuple[Int[Array, "B T"] | None, ...],
    extra: Any = None,
    extra_specs: Any = None,
) -> Float[Array, "B T H E"]:
    """Call ``run`` on each device with its part of the queries and, gathered from the others, all keys and values.

    Gradients of keys and values go back by a reduce-scatter. With grouped queries keys and values are small: H/K times
    smaller than the queries. Devices with later parts of a row have more keys to look at; the last sets the pace.

    Parameters
    ----------
    ids
        Arrays that belong to tokens, such as positions; ``run`` gets the part of its queries, and all of them.
    extra, extra_specs
        A pytree that ``run`` gets, too, and how it is spread over the mesh.
    """
    rules = dict(spmd.get_logical_axis_rules())
    tokens, queries, keys = (PartitionSpec(*(rules[a] for a in axes)) for axes in (TOKENS, QUERIES, KEYS))

    def whole(x: Array) -> Array:
        return jax.lax.all_gather(x, mesh_axes("time"), axis=1, tiled=True)

    def on_device(q: Array, k: Array, v: Array, ids: Any, extra: Any) -> Array:
        return run(q, whole(k), whole(v), ids, jax.tree.map(whole, ids), extra)

    # check_vma would want every output of a Pallas call to be annotated with mesh axes.
    specs = (queries, keys, keys, tokens, extra_specs)
    return jax.shard_map(on_device, in_specs=specs, out_specs=queries, check_vma=False)(q, k, v, ids, extra)
