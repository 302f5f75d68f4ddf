"""Key/value cache for decoding: full length for global layers, a ring of one window for local layers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class LayerCache(NamedTuple):
    """Keys and values of all layers of one kind: P layer pairs, B rows, S slots, K kv heads, E head dim."""

    k: Float[Array, "P B S K E"]
    v: Float[Array, "P B S K E"]


class Cache(NamedTuple):
    """Decoding state. Slot ``position % S`` of a row holds that position; -1 marks an empty slot."""

    local: LayerCache
    globals: LayerCache
    local_positions: Int[Array, "B W"]
    global_positions: Int[Array, "B S"]


def slots(lengths: Int[Array, "B"], capacity: int) -> Int[Array, "B S"]:
    """Position held by each ring slot after ``lengths`` tokens were written; -1 where none."""
    slot = jnp.arange(capacity)
    last = lengths[:, None] - 1
    position = last - jnp.mod(last - slot, capacity)
    return jnp.where(position >= 0, position, -1)


def from_prefill(
    local: LayerCache, globals_: LayerCache, lengths: Int[Array, "B"], window: int, capacity: int
) -> Cache:
    """Lay the keys and values of a prefill ([P, B, T, K, E], rows left-aligned, padded right) out as a cache."""
    window = min(window, capacity)
    local_positions, global_positions = slots(lengths, window), slots(lengths, capacity)

    def gather(x: jax.Array, positions: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, jnp.maximum(positions, 0)[None, :, :, None, None], axis=2)

    def pad(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, capacity - x.shape[2]), (0, 0), (0, 0)))

    return Cache(
        LayerCache(*(gather(x, local_positions) for x in local)),
        LayerCache(*(pad(x) for x in globals_)),
        local_positions,
        global_positions,
    )


def write(cache: LayerCache, pair: jax.Array, positions: Int[Array, "B"], k: jax.Array, v: jax.Array) -> LayerCache:
    """Write one token's keys and values [B, K, E] at layer pair ``pair``, in place when the buffer is donated."""
    rows, slot = jnp.arange(k.shape[0]), positions % cache.k.shape[2]
    return LayerCache(
        cache.k.at[pair, rows, slot].set(k.astype(cache.k.dtype)),
        cache.v.at[pair, rows, slot].set(v.astype(cache.v.dtype)),
    )
