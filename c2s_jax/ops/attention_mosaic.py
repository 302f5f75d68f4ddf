"""Attention on NVIDIA Hopper with tokamax's Mosaic kernel (optional package), in memory linear in T."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2s_jax.ops.attention_kernels import per_device, require_half

MAX_HEAD_DIM = 256


def mosaic(
    q: Float[Array, "B T H E"],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
    *,
    segment_ids: Int[Array, "B T"] | None,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> Float[Array, "B T H E"]:
    """``attend`` for Hopper GPUs; see there for the arguments. The kernel's tanh is the hardware's, good to 11 bits.

    Raises
    ------
    ImportError
        tokamax is not installed.
    ValueError
        Arrays of another dtype than bfloat16 and float16, which the kernel would round; a head dimension above 256,
        whose blocks would not fit in shared memory.
    """
    require_half("mosaic", q.dtype)
    if q.shape[3] > MAX_HEAD_DIM:
        raise ValueError(f'attend: backend "mosaic" takes head dims up to {MAX_HEAD_DIM}, not {q.shape[3]}; use "xla"')
    if find_spec("tokamax") is None:
        raise ImportError('attend: backend "mosaic" needs tokamax (Python 3.12): pip install "c2s_jax[gpu]"')
    # Private names, pinned in pyproject.toml: the public function knows no `k_start`, its module needs Triton.
    from tokamax._src.ops.attention.pallas_mosaic_gpu import PallasMosaicGpuFlashAttention

    kernel = PallasMosaicGpuFlashAttention()
    return with_tokamax(kernel, q, k, v, segment_ids=segment_ids, window=window, softcap=softcap, scale=scale)


def with_tokamax(
    operation: Callable[..., Array],
    q: Float[Array, "B T H E"],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
    *,
    segment_ids: Int[Array, "B T"] | None,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> Float[Array, "B T H E"]:
    """Attention by any of tokamax's implementations, e.g. the one for CPUs that tests can run."""
    run = partial(_run, operation=operation, window=window, softcap=softcap, scale=scale)
    return per_device(run, q, k, v, segment_ids)


def _run(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array | None,
    *,
    operation: Callable[..., Array],
    window: int | None,
    softcap: float | None,
    scale: float,
) -> Array:
    from tokamax._src.ops.attention.base import Mask

    start = first_keys(q.shape[1], segment_ids, window)
    mask = Mask(is_causal=True, k_start=None if start is None else start[:, None])
    return operation(q, k, v, mask=mask, logits_scale=scale, logits_soft_cap=softcap)


def first_keys(time: int, segment_ids: Int[Array, "B T"] | None, window: int | None) -> Int[Array, "B T"] | None:
    """First key that each query sees; the last is the query itself. None where all start at 0."""
    if segment_ids is None and window is None:
        return None
    place = jnp.arange(time, dtype=jnp.int32)[None]
    first = jnp.zeros_like(place)
    if segment_ids is not None:
        opens = jnp.diff(segment_ids, axis=1, prepend=segment_ids[:, :1]) != 0
        first = jax.lax.cummax(jnp.where(opens, place, 0), axis=1)
    return first if window is None else jnp.maximum(first, place - window + 1)
