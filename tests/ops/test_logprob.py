"""Chunked token log-probabilities against ``jax.nn.log_softmax`` of all logits."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2s_jax.ops import token_logprobs

B, T, D, V = 2, 12, 6, 50


def inputs() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    table = rng.normal(size=(V, D)).astype(np.float32)
    return hidden, table, rng.integers(0, V, (B, T), np.int32)


def whole(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, softcap: float | None
) -> tuple[jax.Array, jax.Array]:
    logits = hidden @ table.T
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    log_p = jax.nn.log_softmax(logits)
    logprob = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    return logprob, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk", [None, 1, 4, 5, 12, 100])
def test_values_and_gradients(chunk: int | None, softcap: float | None) -> None:
    """Both outputs, and the gradients that come from both, alone and together."""
    hidden, table, targets = inputs()
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, B, T)).astype(np.float32)
    wanted, pull_wanted = jax.vjp(lambda h, w: whole(h, w, targets, softcap), hidden, table)
    found, pull = jax.vjp(lambda h, w: token_logprobs(h, w, targets, softcap=softcap, chunk=chunk), hidden, table)
    for x, y in zip(found, wanted):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)
    for cotangents in ((a, 0 * b), (0 * a, b), (a, b)):
        for x, y in zip(pull(cotangents), pull_wanted(cotangents)):
            assert np.abs(y).max() > 0.1
            np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())


def test_extreme_logits_stay_finite() -> None:
    hidden, table, targets = inputs()
    logprob, entropy = token_logprobs(hidden * 1e3, table, targets, chunk=5)
    wanted = whole(hidden * 1e3, table, targets, None)
    np.testing.assert_allclose(logprob, wanted[0], rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(entropy, 0.0, atol=1e-2)
    gradient = jax.grad(lambda h: jnp.sum(jnp.stack(token_logprobs(h, table, targets, chunk=5))))(hidden * 1e3)
    assert np.isfinite(gradient).all()


def test_half_precision() -> None:
    """Products accumulate in float32; gradients come back in the dtype of what they belong to."""
    hidden, table, targets = inputs()
    h, w = jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(table, jnp.bfloat16)
    logprob, entropy = token_logprobs(h, w, targets, chunk=5)
    wanted = whole(h.astype(jnp.float32), w.astype(jnp.float32), targets, None)
    assert logprob.dtype == entropy.dtype == jnp.float32
    np.testing.assert_allclose(logprob, wanted[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(entropy, wanted[1], rtol=0, atol=1e-4)
    gradients = jax.grad(lambda h, w: token_logprobs(h, w, targets, chunk=5)[0].sum(), argnums=(0, 1))(h, w)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.bfloat16]


def test_logits_are_never_whole() -> None:
    """No floating-point array of B × T × V elements in the compiled program, forward and backward."""
    batch, time, vocabulary = 2, 64, 512
    hidden, table = jnp.ones((batch, time, D)), jnp.ones((vocabulary, D))
    targets = jnp.zeros((batch, time), jnp.int32)

    def largest(chunk: int) -> int:
        def f(h: jax.Array, w: jax.Array) -> jax.Array:
            logprob, entropy = token_logprobs(h, w, targets, softcap=3.0, chunk=chunk)
            return (logprob * 2 + entropy).sum()

        text = jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(hidden, table).compile().as_text() or ""
        return max(int(np.prod([int(n) for n in s.split(",")])) for s in re.findall(r"\bf32\[([\d,]+)\]", text))

    assert largest(time) == batch * time * vocabulary
    assert largest(8) <= batch * 8 * vocabulary


def test_default_chunk_bounds_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``chunk``, at most CHUNK_LOGITS logits are held."""
    from c2s_jax.ops import logprob

    monkeypatch.setattr(logprob, "CHUNK_LOGITS", B * V * 3)
    hidden, table, targets = inputs()
    text = str(jax.make_jaxpr(lambda h, w: token_logprobs(h, w, targets))(hidden, table))
    assert f"f32[{B},3,{V}]" in text
    assert f"f32[{B},{T},{V}]" not in text
