"""The one attention function. Letters: B batch, T query time, S key time, H heads, K kv heads, E head dim."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Array, Float, Int

from c2s_jax.ops.attention_cudnn import cudnn
from c2s_jax.ops.attention_mosaic import mosaic
from c2s_jax.ops.attention_sequence import over_sequence
from c2s_jax.ops.attention_splash import splash
from c2s_jax.ops.attention_xla import chunked
from c2s_jax.ops.constrain import time_parts

Ids = Int[Array, "B T"]

KERNELS: dict[str, Callable[..., Array]] = {
    "splash": splash,
    "splash_interpret": partial(splash, interpret=True),
    "mosaic": mosaic,
    "cudnn": cudnn,
}
BACKENDS = ("xla", *KERNELS)


def attend(
    q: Float[Array, "B T H E"],
    k: Float[Array, "B S K E"],
    v: Float[Array, "B S K E"],
    *,
    positions: Ids | tuple[Ids, Ids],
    segment_ids: Ids | tuple[Ids, Ids] | None = None,
    window: int | None = None,
    softcap: float | None = None,
    scale: float,
    chunk: int = 512,
    backend: str = "xla",
) -> Float[Array, "B T H E"]:
    """Causal grouped-query attention with soft-capped scores, a sliding window and packed segments, all exact.

    A query sees a key when both belong to one segment and ``0 <= q_position - k_position < window``. No backend
    drops a term or hands over to another: what it cannot do, it refuses. Where the activation rules in force spread
    time over devices, "xla" and "splash" gather all keys and values of a device's rows.

    Parameters
    ----------
    q, k, v
        Queries, keys and values; H is a multiple of K and query head h reads kv head ``h // (H/K)``.
    positions
        Position of each token within its own example. One array when queries and keys are the same tokens: it
        promises that a segment's tokens stand side by side and that their positions rise by one from token to token,
        so that the kernels may count places in the row instead. A pair (queries', keys') otherwise, e.g. for a
        cache; then a negative key position marks an empty slot.
    segment_ids
        Example number of each token, like ``positions``; None when a row is one example.
    window
        Number of keys a query sees, itself included; None for all.
    softcap
        Scores become ``softcap · tanh(scores / softcap)`` (Gemma Team 2024, arXiv:2408.00118, section 2).
    scale
        Multiplies ``q · k``.
    chunk
        Queries a chunk in backend "xla", raised so that there are at most 16 chunks.
    backend
        "xla" (any device, any positions), "splash" (TPU), "mosaic" (NVIDIA Hopper, with the tokamax package),
        "cudnn" (NVIDIA, no soft cap), or "splash_interpret": splash's kernel run by an interpreter on any device,
        for tests. ``choose_backend`` names the one for a device.

    Returns
    -------
    Array of ``q``'s shape and dtype; scores and softmax are float32.

    Raises
    ------
    ValueError
        Shapes that do not fit, an unknown backend, or something that the backend cannot compute exactly; says which
        backend can.
    ImportError
        Backend "mosaic" without tokamax.
    """
    H, K = q.shape[2], k.shape[2]
    if H % K:
        raise ValueError(f"attend: {H} query heads are not a multiple of {K} key/value heads")
    if window is not None and window < 1:
        raise ValueError(f"attend: a window of {window} keys leaves a query nothing to see; give at least 1, or None")
    options: dict[str, Any] = dict(window=window, softcap=softcap, scale=scale)
    paired = isinstance(positions, tuple) or isinstance(segment_ids, tuple) or q.shape[1] != k.shape[1]
    if backend == "xla":
        if not paired and time_parts(q.shape[1]) > 1:
            ids: Any = (positions, segment_ids)
            return over_sequence(partial(_chunked_part, chunk=chunk, **options), q, k, v, ids)
        return chunked(q, k, v, positions=positions, segment_ids=segment_ids, chunk=chunk, **options)
    if backend not in KERNELS:
        raise ValueError(f"attend: backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if paired:
        raise ValueError(
            f'attend: backend "{backend}" needs queries and keys of the same tokens; use backend="xla" for a cache'
        )
    if backend in ("mosaic", "cudnn") and time_parts(q.shape[1]) > 1:
        raise ValueError(
            f'attend: backend "{backend}" needs whole rows on each device; use backend="xla", or a mesh whose sequence '
            "axis is 1"
        )
    return KERNELS[backend](q, k, v, segment_ids=segment_ids, **options)


def _chunked_part(q: Array, k: Array, v: Array, ids: Any, all_ids: Any, extra: None, **options: Any) -> Array:
    """Attention of one device's queries over all keys of their rows."""
    (positions, segments), (all_positions, all_segments) = ids, all_ids
    pair = None if segments is None else (segments, all_segments)
    return chunked(q, k, v, positions=(positions, all_positions), segment_ids=pair, **options)
