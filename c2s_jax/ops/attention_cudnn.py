"""Attention on NVIDIA GPUs with cuDNN, for models without a soft cap (GPT-NeoX)."""

from functools import partial
from typing import Literal

import jax
from jaxtyping import Array, Float, Int

from c2s_jax.ops.attention_kernels import per_device, require_half


def max_head_dim(major: int) -> int:
    """Largest head dimension that cuDNN takes, by the GPU's major compute capability (Hopper is 9)."""
    return 256 if major >= 9 else 128


def cudnn(
    q: Float[Array, "B T H E"],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
    *,
    segment_ids: Int[Array, "B T"] | None,
    window: int | None,
    softcap: float | None,
    scale: float,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B T H E"]:
    """``attend`` by ``jax.nn.dot_product_attention``; see there for the arguments.

    Without segments memory is linear in T. With them cuDNN reads a bias of B · T · T elements, shared by the heads,
    and writes its gradient, which nobody reads: 2 · 2 · B · T² bytes, 256 MiB for a row of 8,192 tokens.

    Parameters
    ----------
    implementation
        "xla" runs the same call in plain JAX on any device, for tests.

    Raises
    ------
    ValueError
        A soft cap, a window together with segments, segments in rows of odd length, or arrays of another dtype than
        bfloat16 and float16.
    """
    if softcap is not None:
        raise ValueError('attend: backend "cudnn" has no soft cap; use "mosaic" (Hopper) or "xla"')
    if segment_ids is not None and window is not None:
        raise ValueError('attend: backend "cudnn" has no window in packed rows; use "mosaic" (Hopper) or "xla"')
    if segment_ids is not None and q.shape[1] % 2:
        raise ValueError(f'attend: backend "cudnn" needs packed rows of even length, not {q.shape[1]}; use "xla"')
    if implementation == "cudnn":
        require_half("cudnn", q.dtype)
    return per_device(partial(_run, window=window, scale=scale, implementation=implementation), q, k, v, segment_ids)


def _run(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array | None,
    *,
    window: int | None,
    scale: float,
    implementation: Literal["cudnn", "xla"],
) -> Array:
    mask = None if segment_ids is None else (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]
    before = None if window is None else (window - 1, 0)
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, scale=scale, is_causal=True, local_window_size=before, implementation=implementation
    )
