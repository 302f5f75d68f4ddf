"""Attention of a few new tokens over keys that lie in several parts, one of which may be shared by several rows."""

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
    together in one product, so that the part is read once for them and never repeated. Each part gives its
    unnormalised sum, its total weight and its largest score; they are merged as in blockwise softmax (Milakov and
    Gimelshein 2018, arXiv:1805.02867), which is exact.
    """
    found = [_over(q, part, positions, window, softcap, scale) for part in parts]
    outs, totals, largest = (jnp.stack(x) for x in zip(*found))
    factors = jnp.exp(largest - largest.max(axis=0))
    return ((factors * outs).sum(axis=0) / (factors * totals).sum(axis=0)).astype(q.dtype)


def _over(
    q: Array, part: KeyPart, positions: Array, window: int | None, softcap: float | None, scale: float
) -> tuple[Array, Array, Array]:
    """Unnormalised output [B,T,H,E], total weight and largest score [B,T,H,1] over one part, float32."""
    (B, T, H, _), (N, K, _, S) = q.shape, part.k.shape
    shared, group = B // N, H // K

    def together(x: Array) -> Array:
        """[B,T,H,X] -> [N,K,M,X]: what reads the same keys side by side."""
        x = x.reshape(N, shared, T, K, group, x.shape[-1])
        return x.transpose(0, 3, 1, 2, 4, 5).reshape(N, K, shared * T * group, x.shape[-1])

    def apart(x: Array) -> Array:
        x = x.reshape(N, K, shared, T, group, x.shape[-1])
        return x.transpose(0, 2, 3, 1, 4, 5).reshape(B, T, H, x.shape[-1])

    scores = jnp.einsum("NKME,NKES->NKMS", together(q), part.k.astype(q.dtype), preferred_element_type=jnp.float32)
    scores *= scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    distance = positions.reshape(N, shared * T, 1) - part.positions[:, None, :]
    visible = (distance >= 0) & (part.positions >= 0)[:, None, :]
    if window is not None:
        visible &= distance < window
    scores = scores.reshape(N, K, shared * T, group, S)
    scores = jnp.where(visible[:, None, :, None], scores, MASKED).reshape(N, K, -1, S)
    largest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    values = part.v.astype(q.dtype)
    out = jnp.einsum("NKMS,NKSE->NKME", weights.astype(q.dtype), values, preferred_element_type=jnp.float32)
    return apart(out), apart(total), apart(largest)
