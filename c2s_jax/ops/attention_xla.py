"""Attention in plain JAX: any device, any positions, and the yardstick of the other backends."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Ids = Int[Array, "B T"]
MASKED = -2.0e38
MAX_CHUNKS = 16


def chunked(
    q: Float[Array, "B T H E"],
    k: Float[Array, "B S K E"],
    v: Float[Array, "B S K E"],
    *,
    positions: Ids | tuple[Ids, Ids],
    segment_ids: Ids | tuple[Ids, Ids] | None,
    window: int | None,
    softcap: float | None,
    scale: float,
    chunk: int,
) -> Float[Array, "B T H E"]:
    """``attend`` for any device; see there for the arguments.

    Queries are taken in chunks; each chunk reads only the keys that it can see and is recomputed in the backward
    pass, so memory is O(chunk · S), never O(T · S), once there is more than one chunk.
    """
    B, T, H, E = q.shape
    S, K = k.shape[1], k.shape[2]
    aligned = not isinstance(positions, tuple)
    q_positions, k_positions = positions if isinstance(positions, tuple) else (positions, positions)
    q_segments, k_segments = segment_ids if isinstance(segment_ids, tuple) else (segment_ids, segment_ids)
    one: Callable[..., Array] = partial(_attend_chunk, window=window, softcap=softcap, scale=scale)
    # Heads before time: the layout in which both products are plain batched matrix products.
    q = q.reshape(B, T, K, H // K, E).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    chunk = min(T, max(chunk, -(-T // MAX_CHUNKS)))
    if chunk < T:
        one = jax.checkpoint(one)
    outputs = []
    for start in range(0, T, chunk):
        rows = slice(start, min(start + chunk, T))
        low = max(0, start - window + 1) if aligned and window else 0
        keys = slice(low, rows.stop if aligned else S)
        segments = (
            (None, None) if q_segments is None or k_segments is None else (q_segments[:, rows], k_segments[:, keys])
        )
        outputs.append(
            one(q[:, :, :, rows], k[:, :, keys], v[:, :, keys], q_positions[:, rows], k_positions[:, keys], *segments)
        )
    return jnp.concatenate(outputs, axis=3).transpose(0, 3, 1, 2, 4).reshape(B, T, H, E)


def _attend_chunk(
    q: Float[Array, "B K G T E"],
    k: Float[Array, "B K S E"],
    v: Float[Array, "B K S E"],
    q_positions: Ids,
    k_positions: Ids,
    q_segments: Ids | None,
    k_segments: Ids | None,
    *,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> Float[Array, "B K G T E"]:
    B, K, G, T, E = q.shape
    scores = jnp.einsum("BKNE,BKSE->BKNS", q.reshape(B, K, G * T, E), k, preferred_element_type=jnp.float32)
    # The scale is applied to float32 scores: in bfloat16, 1/12 would be 0.2 % off.
    scores = scale * scores.reshape(B, K, G, T, -1)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    distance = q_positions[:, :, None] - k_positions[:, None, :]
    visible = (distance >= 0) & (k_positions >= 0)[:, None, :]
    if window is not None:
        visible &= distance < window
    if q_segments is not None and k_segments is not None:
        visible &= q_segments[:, :, None] == k_segments[:, None, :]
    scores = jnp.where(visible[:, None, None], scores, MASKED)
    # A softmax whose division comes after the product with the values, where there are E numbers a row, not S.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(v.dtype).reshape(B, K, G * T, -1)
    out = jnp.einsum("BKNS,BKSE->BKNE", weights, v, preferred_element_type=jnp.float32)
    return (out.reshape(B, K, G, T, E) / total).astype(v.dtype)
