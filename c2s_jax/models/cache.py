"""Key/value cache for decoding: full length for global layers, a ring of one window for local layers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class KeyValues(NamedTuple):
    """Keys and values of one layer [B, T, K, E], or of the same layer of all blocks [P, B, T, K, E]."""

    k: Float[Array, "... B T K E"]
    v: Float[Array, "... B T K E"]


class LayerCache(NamedTuple):
    """Decoding state of one layer of a block, over all P blocks: B rows, S slots, K kv heads, E head dim.

    Slot ``position % S`` of a row holds that position; -1 marks an empty slot.
    """

    kv: KeyValues
    positions: Int[Array, "B S"]


Cache = tuple[LayerCache, ...]
"""One entry a layer of the block."""


def slots(lengths: Int[Array, "B"], capacity: int) -> Int[Array, "B S"]:
    """Position held by each ring slot after ``lengths`` tokens were written; -1 where none."""
    slot = jnp.arange(capacity)
    last = lengths[:, None] - 1
    position = last - jnp.mod(last - slot, capacity)
    return jnp.where(position >= 0, position, -1)


def from_prefill(kv: KeyValues, lengths: Int[Array, "B"], window: int | None, capacity: int) -> LayerCache:
    """Lay the keys and values of a prefill ([P, B, T, K, E], rows left-aligned, padded right) out as a cache."""
    if window is not None and window < capacity:
        positions = slots(lengths, window)
        index = jnp.maximum(positions, 0)[None, :, :, None, None]
        return LayerCache(KeyValues(*(jnp.take_along_axis(x, index, axis=2) for x in kv)), positions)
    padding = ((0, 0), (0, 0), (0, capacity - kv.k.shape[2]), (0, 0), (0, 0))
    return LayerCache(KeyValues(*(jnp.pad(x, padding) for x in kv)), slots(lengths, capacity))


def write(kv: KeyValues, block: Array, positions: Int[Array, "B"], k: jax.Array, v: jax.Array) -> KeyValues:
    """Write one token's keys and values [B, K, E] at ``block``, in place when the buffer is donated."""
    rows, slot = jnp.arange(k.shape[0]), positions % kv.k.shape[2]
    return KeyValues(
        kv.k.at[block, rows, slot].set(k.astype(kv.k.dtype)),
        kv.v.at[block, rows, slot].set(v.astype(kv.v.dtype)),
    )


def read(kv: KeyValues, block: Array) -> KeyValues:
    """Keys and values of one block."""
    return KeyValues(*(jax.lax.dynamic_index_in_dim(x, block, keepdims=False) for x in kv))
