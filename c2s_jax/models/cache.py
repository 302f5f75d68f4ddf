"""Key/value cache for decoding, in two parts: what prompts left, stored once a prompt, and each row's own tokens.

Letters: N prompts, B = N · n rows (n samples of each prompt, side by side), P blocks, K kv heads, E head dim, S slots.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2s_jax.ops import KeyPart


class KeyValues(NamedTuple):
    """Keys and values of the same layer of P blocks, each laid out as decoding's products read it."""

    k: Float[Array, "P B K E S"]
    v: Float[Array, "P B K S E"]


class LayerCache(NamedTuple):
    """Keys and values of one layer of a block; a position of -1 marks an empty slot.

    ``kv`` has one entry a part into which the stack of blocks was taken apart, see ``Decoder.parts``.
    """

    kv: tuple[KeyValues, ...]
    positions: Int[Array, "B S"]


Cache = tuple[LayerCache, ...]
"""One entry a layer of the block. Of prompts it has N rows, of what follows them B."""


def slots(lengths: Int[Array, "N"], capacity: int) -> Int[Array, "N S"]:
    """Position held by each ring slot after ``lengths`` tokens were written; -1 where none."""
    slot = jnp.arange(capacity)
    last = lengths[:, None] - 1
    position = last - jnp.mod(last - slot, capacity)
    return jnp.where(position >= 0, position, -1)


def from_prefill(
    k: Float[Array, "P N T K E"],
    v: Float[Array, "P N T K E"],
    lengths: Int[Array, "N"],
    window: int | None,
    parts: int = 1,
) -> LayerCache:
    """What a prefill (rows left-aligned, padded right) leaves: a local layer keeps its last window of tokens only."""
    k, v = k.transpose(0, 1, 3, 4, 2), v.transpose(0, 1, 3, 2, 4)
    if window is not None and window < v.shape[3]:
        positions = slots(lengths, window)
        index = jnp.maximum(positions, 0)[None, :, None]
        k = jnp.take_along_axis(k, index[..., None, :], axis=4)
        v = jnp.take_along_axis(v, index[..., None], axis=3)
    else:
        positions = slots(lengths, v.shape[3])
    return LayerCache(tuple(map(KeyValues, jnp.split(k, parts), jnp.split(v, parts))), positions)


def empty(prompt: LayerCache, rows: int, window: int | None, tokens: int, at_once: int) -> LayerCache:
    """Room for ``tokens`` tokens after the prompt, of which ``at_once`` are written at a time.

    A local layer has a ring of its window and as much more as is written at once: what a token replaces, no query of
    the same pass can see. Tokens that a later pass writes again need no clearing: their slots and positions are written
    before any query could see them.
    """
    capacity = tokens if window is None else min(tokens, window + at_once)

    def room(kv: KeyValues) -> KeyValues:
        (P, _, K, E, _), dtype = kv.k.shape, kv.k.dtype
        return KeyValues(jnp.zeros((P, rows, K, E, capacity), dtype), jnp.zeros((P, rows, K, capacity, E), dtype))

    return LayerCache(tuple(map(room, prompt.kv)), jnp.full((rows, capacity), -1, jnp.int32))


def hold(cache: LayerCache, index: Int[Array, "..."], positions: Int[Array, "B T"]) -> Int[Array, "B S"]:
    """Positions of the slots after T tokens a row were written, the first as its row's token number ``index``.

    ``index`` is one number for all rows, or one a row.
    """
    at, held = _slots(index, positions.shape[1], cache.positions.shape[1]), cache.positions
    if at.ndim == 1:
        return held.at[:, at].set(positions)
    return held.at[jnp.arange(held.shape[0])[:, None], at].set(positions)


def write(
    kv: KeyValues,
    block: Array,
    index: Int[Array, "..."],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
) -> KeyValues:
    """Write T tokens a row at ``block``, the first as its row's token number ``index``; in place where possible."""
    k, v = k.astype(kv.k.dtype), v.astype(kv.v.dtype)
    at, (B, T) = _slots(index, k.shape[1], kv.v.shape[3]), k.shape[:2]
    # A slice of all rows at once would do when they share a slot, but on the CPU XLA fuses it with its readers, twice,
    # each time into a copy of the whole cache.
    rows, at = jnp.arange(B)[:, None], jnp.broadcast_to(at, (B, T))
    return KeyValues(kv.k.at[block, rows, :, :, at].set(k), kv.v.at[block, rows, :, at].set(v))


def read(kv: KeyValues, block: Array, positions: Int[Array, "B S"]) -> KeyPart:
    """Keys and values of one block."""
    k, v = (jax.lax.dynamic_index_in_dim(x, block, keepdims=False) for x in kv)
    return KeyPart(k, v, positions)


def new(k: Float[Array, "B T K E"], v: Float[Array, "B T K E"], positions: Int[Array, "B T"]) -> KeyPart:
    """Keys and values of the tokens at hand, in no cache."""
    return KeyPart(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), positions)


def _slots(index: Array, tokens: int, capacity: int) -> Array:
    return (index[..., None] + jnp.arange(tokens)) % capacity
