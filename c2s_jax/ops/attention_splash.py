"""Attention on TPU with JAX's splash kernel, exact for everything that ``attend`` offers, in memory linear in T."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import (
    process_mask,
    process_mask_dkv,
)
from jaxtyping import Array, Float, Int

from c2s_jax.ops.attention_kernels import per_device

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
    pass the forward kernel.

    Parameters
    ----------
    interpret
        Run the kernel in Pallas' interpreter, on any device, slowly.

    Raises
    ------
    ValueError
        A head dimension above 256: the blocks would not fit in VMEM.
    """
    time, head_dim = q.shape[1], q.shape[3]
    if head_dim > MAX_HEAD_DIM:
        raise ValueError(
            f'attend: backend "splash" takes head dims up to {MAX_HEAD_DIM}, not {head_dim}; use backend="xla"'
        )
    padding = -time % (LANES if time <= MAX_BLOCK_KV else MAX_BLOCK_KV)
    q = (q.astype(jnp.float32) * scale).astype(q.dtype)
    if padding:  # later keys, which no query sees
        q, k, v = (jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))) for x in (q, k, v))
        segment_ids = None if segment_ids is None else jnp.pad(segment_ids, ((0, 0), (0, padding)))
    run = partial(_run, window=window, softcap=softcap, interpret=interpret)
    return per_device(run, q, k, v, segment_ids)[:, :time]


def _run(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array | None,
    *,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> Array:
    kernel = _kernel(q.shape[1], q.shape[2], window, softcap, interpret)
    heads_first = (x.swapaxes(1, 2) for x in (q, k, v))
    segments = None if segment_ids is None else kernels.SegmentIds(segment_ids, segment_ids)
    return jax.vmap(kernel)(*heads_first, segments).swapaxes(1, 2)


@lru_cache(maxsize=64)
def _kernel(time: int, heads: int, window: int | None, softcap: float | None, interpret: bool) -> Callable[..., Any]:
    """The kernel of one problem size, which knows which blocks its mask leaves empty.

    Put together from its parts, in NumPy: ``make_splash_mha`` would place arrays on the devices of the mesh in force,
    which must not happen while tracing and cannot when compiling for devices that are elsewhere.
    """
    shape = (time, time)
    causal = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), offset=0)
    mask = masks.MultiHeadMask([causal] * heads)
    blocks = _block_sizes(time)
    forward, visible = process_mask(mask, (blocks.block_q, blocks.block_kv))
    d_q, _ = process_mask(mask, (blocks.block_q_dq, blocks.block_kv_dq))
    d_kv, _ = process_mask_dkv(mask, (blocks.block_q_dkv, blocks.block_kv_dkv))
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


def _block_sizes(time: int) -> kernels.BlockSizes:
    """Blocks for a padded ``time``: at most 512, or a multiple of 512."""
    kv = min(time, MAX_BLOCK_KV)
    q = max(n for n in range(kv, min(time, MAX_BLOCK_Q) + 1, kv) if time % n == 0)
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
