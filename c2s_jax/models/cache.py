"""Key/value cache for decoding: full length for global layers, a ring of one window for local layers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class KeyValues(NamedTuple):
    """Keys and values of the same layer of P blocks, each laid out as decoding's products read it."""

    k: Float[Array, "P B K E S"]
    v: Float[Array, "P B K S E"]


class LayerCache(NamedTuple):
    """Decoding state of one layer of a block: B rows, S slots, K kv heads, E head dim.

    Slot ``position % S`` of a row holds that position; -1 marks an empty slot. ``kv`` has one entry a part into which
    the stack of blocks was taken apart, see ``Decoder.parts``.
    """

    kv: tuple[KeyValues, ...]
    positions: Int[Array, "B S"]


Cache = tuple[LayerCache, ...]
"""One entry a layer of the block."""


def slots(lengths: Int[Array, "B"], capacity: int) -> Int[Array, "B S"]:
    """Position held by each ring slot after ``lengths`` tokens were written; -1 where none."""
    slot = jnp.arange(capacity)
    last = lengths[:, None] - 1
    position = last - jnp.mod(last - slot, capacity)
    return jnp.where(position >= 0, position, -1)


def from_prefill(
    k: Float[Array, "P B T K E"],
    v: Float[Array, "P B T K E"],
    lengths: Int[Array, "B"],
    window: int | None,
    capacity: int,
    parts: int = 1,
) -> LayerCache:
    """Lay the keys and values of a prefill (rows left-aligned, padded right) out as a cache."""
    k, v = k.transpose(0, 1, 3, 4, 2), v.transpose(0, 1, 3, 2, 4)
    if window is not None and window < capacity:
        positions = slots(lengths, window)
        index = jnp.maximum(positions, 0)[None, :, None]
        k = jnp.take_along_axis(k, index[..., None, :], axis=4)
        v = jnp.take_along_axis(v, index[..., None], axis=3)
    else:
        positions, room = slots(lengths, capacity), (0, capacity - v.shape[3])
        k, v = (jnp.pad(x, [room if i == axis else (0, 0) for i in range(5)]) for x, axis in ((k, 4), (v, 3)))
    return LayerCache(tuple(map(KeyValues, jnp.split(k, parts), jnp.split(v, parts))), positions)


def write(kv: KeyValues, block: Array, positions: Int[Array, "B"], k: jax.Array, v: jax.Array) -> KeyValues:
    """Write one token's keys and values [B, K, E] at ``block``, in place when the buffer is donated."""
    rows, slot = jnp.arange(k.shape[0]), positions % kv.v.shape[3]
    return KeyValues(
        kv.k.at[block, rows, :, :, slot].set(k.astype(kv.k.dtype)),
        kv.v.at[block, rows, :, slot].set(v.astype(kv.v.dtype)),
    )


def read(kv: KeyValues, block: Array) -> tuple[Float[Array, "B S K E"], Float[Array, "B S K E"]]:
    """Keys and values of one block."""
    k, v = (jax.lax.dynamic_index_in_dim(x, block, keepdims=False) for x in kv)
    return k.transpose(0, 3, 1, 2), v.transpose(0, 2, 1, 3)
