"""Attention of a few new tokens over keys that lie in several parts, one of which may be shared by several rows."""

from functools import reduce
from operator import add
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2s_jax.ops.attention_xla import MASKED


class KeyPart(NamedTuple):
    """Keys and values of N rows, laid out as the products read them; a negative position marks an empty slot."""

    k: Float[Array, "N K E S"]
    v: Float[Array, "N K S E"]
    positions: Int[Array, "N S"]


def attend_parts(
    q: Float[Array, "B T H E"],
    parts: tuple[KeyPart, ...],
    *,
    positions: Int[Array, "B T"],
    window: int | None,
    softcap: float | None,
    scale: float,
) -> Float[Array, "B T H E"]:
    """``attend`` of queries at ``positions`` over the keys of all parts together.

    A part of N < B rows is shared: row b of the queries reads its row ``b // (B/N)``. The rows that share are taken
    together in one product, so that the part is read once for them and never repeated. One softmax goes over the scores
    of all parts; its division comes last.
    """
    scores = [_scores(q, part, positions, window, softcap, scale) for part in parts]
    largest = reduce(jnp.maximum, (_apart(x.max(axis=-1, keepdims=True), q) for x in scores))
    weights = [jnp.exp(x - _together(largest, part)) for x, part in zip(scores, parts)]
    # Sums of two terms written as such: of a reduction over stacked parts, XLA for CPUs makes a part of the product
    # that follows, which then takes six times as long.
    total = reduce(add, (_apart(x.sum(axis=-1, keepdims=True), q) for x in weights))
    out = reduce(add, (_apart(_values(x, part, q.dtype), q) for x, part in zip(weights, parts)))
    return (out / total).astype(q.dtype)


def _scores(
    q: Array, part: KeyPart, positions: Array, window: int | None, softcap: float | None, scale: float
) -> Float[Array, "N K M S"]:
    """Scores of the M queries that read the same keys, float32; ``MASKED`` where a query does not see a key."""
    (B, T, H, _), (N, K, _, S) = q.shape, part.k.shape
    keys = part.k.astype(q.dtype)
    scores = scale * jnp.einsum("NKME,NKES->NKMS", _together(q, part), keys, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    distance = positions.reshape(N, B // N * T, 1) - part.positions[:, None, :]
    visible = (distance >= 0) & (part.positions >= 0)[:, None, :]
    if window is not None:
        visible &= distance < window
    scores = scores.reshape(N, K, B // N * T, H // K, S)
    return jnp.where(visible[:, None, :, None], scores, MASKED).reshape(N, K, -1, S)


def _values(weights: Float[Array, "N K M S"], part: KeyPart, dtype: jnp.dtype) -> Float[Array, "N K M E"]:
    values = part.v.astype(dtype)
    return jnp.einsum("NKMS,NKSE->NKME", weights.astype(dtype), values, preferred_element_type=jnp.float32)


def _together(x: Float[Array, "B T H X"], part: KeyPart) -> Float[Array, "N K M X"]:
    """What reads the same keys side by side."""
    (B, T, H, _), (N, K) = x.shape, part.k.shape[:2]
    x = x.reshape(N, B // N, T, K, H // K, x.shape[-1])
    return x.transpose(0, 3, 1, 2, 4, 5).reshape(N, K, -1, x.shape[-1])


def _apart(x: Float[Array, "N K M X"], q: Float[Array, "B T H E"]) -> Float[Array, "B T H X"]:
    """Inverse of ``_together``."""
    (N, K, _, X), (B, T, H, _) = x.shape, q.shape
    return x.reshape(N, K, B // N, T, H // K, X).transpose(0, 2, 3, 1, 4, 5).reshape(B, T, H, X)
