"""Attention on TPU with JAX's splash kernel, exact for everything that ``attend`` offers, in memory linear in T."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import (
    process_mask,
    process_mask_dkv,
)
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from c2s_jax.ops.attention_kernels import per_device
from c2s_jax.ops.attention_sequence import over_sequence
from c2s_jax.ops.constrain import mesh_axes, shards, time_parts

LANES = 128  # the kernel's blocks are multiples of it
# The largest that v4, v5e, v5p and v6e compile for head dim 256, backward too, at XLA's default limit of scoped VMEM.
MAX_BLOCK_Q = 1024
MAX_BLOCK_KV = 512
MAX_HEAD_DIM = 256
RESIDUALS = "context"


def splash(
    q: Float[Array, "B T H E"],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
    *,
    segment_ids: Int[Array, "B T"] | None,
    window: int | None,
    softcap: float | None,
    scale: float,
    interpret: bool = False,
) -> Float[Array, "B T H E"]:
    """``attend`` for TPU; see there for the arguments.

    ``q · scale`` is rounded to ``q``'s dtype once, from a float32 product, because the kernel knows no scale. The
    output and its log-sum-exp are named "context" for ``jax.checkpoint`` policies: saving them spares the backward
    pass the forward kernel. Devices share the time axis where each gets a multiple of 128 tokens; shorter rows, as of
    prompts, are whole on each.

    Parameters
    ----------
    interpret
        Run the kernel in Pallas' interpreter, on any device, slowly.

    Raises
    ------
    ValueError
        A head dimension above 256: the blocks would not fit in VMEM.
    """
    time, head_dim, parts = q.shape[1], q.shape[3], time_parts(q.shape[1])
    if head_dim > MAX_HEAD_DIM:
        raise ValueError(
            f'attend: backend "splash" takes head dims up to {MAX_HEAD_DIM}, not {head_dim}; use backend="xla"'
        )
    q = (q.astype(jnp.float32) * scale).astype(q.dtype)
    if parts > 1 and time % (parts * LANES) == 0:
        return _over_sequence(q, k, v, segment_ids, window, softcap, interpret)
    padding = -time % (LANES if time <= MAX_BLOCK_KV else MAX_BLOCK_KV)
    if padding:  # later keys, which no query sees
        q, k, v = (jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))) for x in (q, k, v))
        segment_ids = None if segment_ids is None else jnp.pad(segment_ids, ((0, 0), (0, padding)))

    def run(q: Array, k: Array, v: Array, segment_ids: Array | None) -> Array:
        kernel = _kernel(q.shape[1], q.shape[2], window, softcap, interpret)
        return _mix(q, k, v, (segment_ids,), (segment_ids,), kernel)

    return per_device(run, q, k, v, segment_ids)[:, :time]


def _over_sequence(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array | None,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> Array:
    """Each device its part of the queries, with the part of the mask that belongs to them."""
    time, parts = q.shape[1], time_parts(q.shape[1])
    kernel = _kernel(time, q.shape[2] // shards("heads"), window, softcap, interpret, parts)
    mesh = jax.sharding.get_abstract_mesh()
    specs = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, mesh_axes("time"))))
    return over_sequence(_mix, q, k, v, (segment_ids,), kernel, specs)


def _mix(q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, kernel: Any) -> Array:
    heads_first = (x.swapaxes(1, 2) for x in (q, k, v))
    segments = None if q_ids[0] is None else kernels.SegmentIds(q_ids[0], k_ids[0])
    return jax.vmap(kernel)(*heads_first, segments).swapaxes(1, 2)


@lru_cache(maxsize=64)
def _kernel(
    time: int, heads: int, window: int | None, softcap: float | None, interpret: bool, parts: int = 1
) -> kernels.SplashAttentionKernel:
    """The kernel of one problem size, which knows which blocks its mask leaves empty.

    With ``parts`` its masks are laid out so that each of as many devices can be given those of its queries.

    Put together from its parts, in NumPy: ``make_splash_mha`` would place arrays on the devices of the mesh in force,
    which must not happen while tracing and cannot when compiling for devices that are elsewhere.
    """
    shape = (time, time)
    causal = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), offset=0)
    mask = masks.MultiHeadMask([causal] * heads)
    blocks = _block_sizes(time, parts)
    forward, visible = process_mask(mask, (blocks.block_q, blocks.block_kv), q_seq_shards=parts)
    d_q, _ = process_mask(mask, (blocks.block_q_dq, blocks.block_kv_dq), q_seq_shards=parts)
    d_kv, _ = process_mask_dkv(mask, (blocks.block_q_dkv, blocks.block_kv_dkv), q_seq_shards=parts)
    return kernels.SplashAttentionKernel(
        forward,
        d_q,
        d_kv,
        block_sizes=blocks,
        is_mqa=False,
        save_residuals=False,
        mask_value=kernels.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name=RESIDUALS,
        mask_function=visible,
        interpret=interpret,
    )


def _block_sizes(time: int, parts: int) -> kernels.BlockSizes:
    """The largest blocks for a padded ``time`` of keys, and queries a part."""
    kv, q = _divisor(time, MAX_BLOCK_KV), _divisor(time // parts, MAX_BLOCK_Q)
    return kernels.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=kv,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=kv,
        block_q_dq=q,
        block_kv_dq=kv,
    )


def _divisor(time: int, limit: int) -> int:
    """The largest multiple of ``LANES`` up to ``limit`` that divides ``time``."""
    return max(n for n in range(LANES, min(time, limit) + 1, LANES) if time % n == 0)
