"""Attention against a reference that visits one query and one key at a time."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from c2s_jax.ops import attend

B, T, K, E = 2, 40, 2, 4


def reference(
    q: NDArray,
    k: NDArray,
    v: NDArray,
    q_positions: NDArray,
    k_positions: NDArray,
    q_segments: NDArray,
    k_segments: NDArray,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> NDArray:
    """Float64, from the definition."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[2] // k.shape[2]
    out = np.zeros(q.shape)
    for b, t, h in itertools.product(*map(range, q.shape[:3])):
        distance = q_positions[b, t] - k_positions[b]
        seen = (distance >= 0) & (k_positions[b] >= 0) & (q_segments[b, t] == k_segments[b])
        if window is not None:
            seen &= distance < window
        scores = k[b, seen, h // group] @ q[b, t, h] * scale
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights @ v[b, seen, h // group] / weights.sum()
    return out


def heads(heads_per_group: int, time: int = T, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    shapes = ((B, time, K * heads_per_group, E), (B, time, K, E), (B, time, K, E))
    q, k, v = (rng.normal(size=s).astype(np.float32) * 2 for s in shapes)
    return q, k, v


def packed() -> tuple[Any, Any]:
    """Positions and segments of two differently packed rows, padding (segment 0) at the end."""
    lengths = ((17, 1, 19, 3), (5, 30, 2, 3))
    segments = np.stack([np.repeat([1, 2, 3, 0], n) for n in lengths]).astype(np.int32)
    positions = np.stack([np.concatenate([np.arange(i) for i in n]) for n in lengths]).astype(np.int32)
    return positions, segments


@pytest.mark.parametrize("heads_per_group", [1, 3])
@pytest.mark.parametrize("in_segments", [False, True])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 6])
def test_equals_the_definition(
    window: int | None, softcap: float | None, in_segments: bool, heads_per_group: int
) -> None:
    q, k, v = heads(heads_per_group)
    positions, segments = packed()
    if not in_segments:
        positions, segments = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)), np.ones((B, T), np.int32)
    wanted = reference(q, k, v, positions, positions, segments, segments, window, softcap, 0.7)
    for chunk in (512, 7, 1):  # one piece; not a divisor of T; raised to 3 so as to make 16 chunks at most
        found = jax.jit(
            lambda *x, chunk=chunk: attend(
                *x,
                positions=positions,
                segment_ids=segments if in_segments else None,
                window=window,
                softcap=softcap,
                scale=0.7,
                chunk=chunk,
            )
        )(q, k, v)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("chunk", [512, 3])
@pytest.mark.parametrize("window", [None, 5])
def test_cache_with_empty_slots(window: int | None, chunk: int) -> None:
    """Keys in any order, some slots empty (position -1, garbage inside), queries at positions of their own."""
    q: Any
    q_positions: Any
    k_positions: Any
    q_segments: Any
    k_segments: Any
    rng = np.random.default_rng(1)
    slots, queries = 16, 6
    q = rng.normal(size=(B, queries, 2 * K, E)).astype(np.float32)
    k, v = rng.normal(size=(2, B, slots, K, E)).astype(np.float32)
    k_positions = np.stack([rng.permutation(np.r_[np.arange(n), np.full(slots - n, -1)]) for n in (12, 9)])
    k[k_positions < 0], v[k_positions < 0] = 50.0, 1e4
    q_positions = np.stack([np.arange(n - queries, n) for n in (12, 9)])
    q_segments, k_segments = np.ones((B, queries), np.int32), np.ones((B, slots), np.int32)
    arguments = (q_positions, k_positions, q_segments, k_segments, window, 2.0, 0.5)
    found = attend(
        q,
        k,
        v,
        positions=(q_positions, k_positions),
        segment_ids=(q_segments, k_segments),
        window=window,
        softcap=2.0,
        scale=0.5,
        chunk=chunk,
    )
    np.testing.assert_allclose(found, reference(q, k, v, *arguments), rtol=0, atol=2e-5)


@pytest.mark.parametrize("window", [None, 6])
def test_gradients_do_not_depend_on_chunks(window: int | None) -> None:
    q, k, v = heads(2)
    positions, segments = packed()
    cotangent = np.random.default_rng(2).normal(size=q.shape).astype(np.float32)

    def gradients(chunk: int) -> tuple[jax.Array, ...]:
        def f(*x: jax.Array) -> jax.Array:
            out = attend(
                *x, positions=positions, segment_ids=segments, window=window, softcap=1.5, scale=0.7, chunk=chunk
            )
            return jnp.sum(out * cotangent)

        return jax.jit(jax.grad(f, argnums=(0, 1, 2)))(q, k, v)

    for found, wanted in zip(gradients(7), gradients(512)):
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def largest_array(compiled_text: str | None) -> int:
    """Elements of the largest floating-point array of a compiled program."""
    shapes = re.findall(r"\bf32\[([\d,]+)\]", compiled_text or "")
    return max(int(np.prod([int(n) for n in s.split(",")])) for s in shapes)


def test_memory_of_chunks() -> None:
    """No array of all T × T scores, forward or backward; with a window, not even of a chunk's T keys."""
    time, chunk, window = 256, 32, 16
    q, k, v = (jnp.asarray(x) for x in heads(1, time))
    positions = jnp.broadcast_to(jnp.arange(time), (B, time))

    def largest(chunk: int, window: int | None) -> int:
        def f(*x: jax.Array) -> jax.Array:
            return attend(*x, positions=positions, window=window, softcap=2.0, scale=1.0, chunk=chunk).sum()

        return largest_array(jax.jit(jax.grad(f, argnums=(0, 1, 2))).lower(q, k, v).compile().as_text())

    assert largest(time, None) == B * K * time * time
    assert largest(chunk, None) <= B * K * chunk * time
    # Queries, keys, values themselves are B·T·K·E, a chunk's scores B·K·chunk·(chunk + window - 1).
    assert largest(chunk, window) <= max(B * time * K * E, B * K * chunk * (chunk + window - 1))


def test_half_precision_keeps_its_dtype() -> None:
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in heads(2))
    positions, segments = packed()
    out = attend(q, k, v, positions=positions, segment_ids=segments, scale=0.7)
    assert out.dtype == jnp.bfloat16
    a, b, c = (np.asarray(x, np.float32) for x in (q, k, v))
    wanted = reference(a, b, c, positions, positions, segments, segments, None, None, 0.7)
    assert np.abs(np.asarray(out, np.float64) - wanted).mean() < 0.02


def test_heads_must_divide() -> None:
    q, k, v = heads(1)
    with pytest.raises(ValueError, match="3 query heads are not a multiple of 2"):
        attend(jnp.repeat(q, 2, axis=2)[:, :, :3], k, v, positions=packed()[0], scale=1.0)
