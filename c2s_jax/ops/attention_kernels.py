"""What hand-written attention kernels share: dtypes, and each device's part under a mesh."""

from collections.abc import Callable

import jax
from flax.core import spmd
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from c2s_jax.ops.constrain import shards

TOKENS = ("batch", "time")
QUERIES = ("batch", "time", "heads", "head_dim")
KEYS = ("batch", "time", "kv_heads", "head_dim")

HALF = ("bfloat16", "float16")
"""All that the kernels for NVIDIA GPUs compute in."""

Kernel = Callable[[Array, Array, Array, Array | None], Array]
"""(q, k, v, segment_ids) -> mixed values; all arrays of one device."""


def per_device(
    kernel: Kernel,
    q: Float[Array, "B T H E"],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
    segment_ids: Int[Array, "B T"] | None,
) -> Float[Array, "B T H E"]:
    """Run ``kernel`` on the rows and heads of each device; the compiler could not split it by itself.

    Rows are split as the activation rules in force (``c2s_jax.parallel.activation_rules``) split "batch", heads as
    they split "heads" and "kv_heads"; time is whole on each. Outside of rules, or without a mesh, the kernel runs as it
    is.

    Raises
    ------
    ValueError
        Rows or heads that the mesh does not divide.
    """
    rules, mesh = dict(spmd.get_logical_axis_rules()), jax.sharding.get_abstract_mesh()
    if not rules or mesh.empty:
        return kernel(q, k, v, segment_ids)
    rules["time"] = None
    for axis, size in zip(("batch", "heads", "kv_heads"), (q.shape[0], q.shape[2], k.shape[2])):
        if size % (parts := shards(axis)):
            raise ValueError(f'attend: {size} "{axis}" cannot be split over {parts} devices (mesh axis {rules[axis]})')
    tokens, queries, keys = (PartitionSpec(*(rules[a] for a in axes)) for axes in (TOKENS, QUERIES, KEYS))
    # check_vma would want every output of a Pallas call to be annotated with mesh axes.
    split_kernel = jax.shard_map(kernel, in_specs=(queries, keys, keys, tokens), out_specs=queries, check_vma=False)
    return split_kernel(q, k, v, segment_ids)


def require_half(backend: str, dtype: DTypeLike) -> None:
    """Refuse what a kernel would silently round.

    Raises
    ------
    ValueError
        A dtype that is not in ``HALF``.
    """
    if dtype not in HALF:
        raise ValueError(f'attend: backend "{backend}" computes in {" or ".join(HALF)}, not {dtype}; use "xla"')
