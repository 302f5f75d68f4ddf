"""Chunked token log-probabilities against ``jax.nn.log_softmax`` of all logits."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c2s_jax.ops import logprob, token_logprobs
from c2s_jax.parallel import activation_rules, batch_sharding, make_mesh

B, T, D, V = 2, 12, 6, 50

Op = Callable[[Any, Any, Any], tuple[jax.Array, jax.Array]]


def inputs() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    table = rng.normal(size=(V, D)).astype(np.float32)
    return hidden, table, rng.integers(0, V, (B, T), np.int32)


def whole(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, softcap: float | None, temperature: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    logits = hidden @ table.T
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    log_p = jax.nn.log_softmax(logits / temperature)
    logprob = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    return logprob, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


@pytest.mark.parametrize("temperature", [1.0, 0.8])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk", [None, 1, 4, 5, 12, 100])
def test_values_and_gradients(chunk: int | None, softcap: float | None, temperature: float) -> None:
    """Both outputs, and the gradients that come from both, alone and together."""
    hidden, table, targets = inputs()
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, B, T)).astype(np.float32)
    options = dict(softcap=softcap, temperature=temperature)
    wanted, pull_wanted = jax.vjp(lambda h, w: whole(h, w, targets, **options), hidden, table)
    found, pull = jax.vjp(lambda h, w: token_logprobs(h, w, targets, chunk=chunk, **options), hidden, table)
    for x, y in zip(found, wanted):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)
    for cotangents in ((a, 0 * b), (0 * a, b), (a, b)):
        for x, y in zip(pull(cotangents), pull_wanted(cotangents)):
            assert np.abs(y).max() > 0.1
            np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_rows_that_pad_the_table(softcap: float | None) -> None:
    """As if they were not there: no probability, no gradient."""
    hidden, table, targets = inputs()
    real, targets = V - 7, targets % (V - 7)
    wanted, pull_wanted = jax.vjp(lambda h, w: whole(h, w[:real], targets, softcap, 0.8), hidden, table)
    options: Any = dict(softcap=softcap, temperature=0.8, vocab_size=real, chunk=5)
    found, pull = jax.vjp(lambda h, w: token_logprobs(h, w, targets, **options), hidden, table)
    cotangents = tuple(np.random.default_rng(1).normal(size=(2, B, T)).astype(np.float32))
    for x, y in zip((*found, *pull(cotangents)), (*wanted, *pull_wanted(cotangents))):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())
    assert np.abs(whole(hidden, table, targets, softcap, 0.8)[0] - wanted[0]).max() > 0.01


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


def test_gradients_in_half_precision() -> None:
    """They are as near the exact ones as rounding of what is multiplied allows."""
    hidden, table, targets = inputs()
    h, w = jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(table, jnp.bfloat16)
    found = jax.grad(lambda h, w: token_logprobs(h, w, targets, chunk=5)[0].sum(), argnums=(0, 1))(h, w)
    exact = jax.grad(lambda h, w: whole(h, w, targets, None)[0].sum(), argnums=(0, 1))
    for x, y in zip(found, exact(h.astype(jnp.float32), w.astype(jnp.float32))):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_allclose(x.astype(jnp.float32), y, rtol=0, atol=0.01 * np.abs(y).max())


# ------------------------------------------------------------------------------------------------------- memory


def value_and_grad(op: Op) -> Callable[..., Any]:
    def f(h: jax.Array, w: jax.Array, t: jax.Array) -> jax.Array:
        logprob, entropy = op(h, w, t)
        return (2 * logprob + entropy).sum()

    return jax.value_and_grad(f, argnums=(0, 1))


def temporary_bytes(op: Op, time: int, batch: int = 4, vocabulary: int = 2048) -> int:
    shapes = (batch, time, D), (vocabulary, D)
    floats = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    targets = jax.ShapeDtypeStruct((batch, time), jnp.int32)
    analysis: Any = jax.jit(value_and_grad(op)).lower(*floats, targets).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def test_memory_does_not_grow_with_time() -> None:
    """Beyond what is as small as the hidden states; the memory of logits made at once grows by all of them."""
    batch, vocabulary, chunk, short, long = 4, 2048, 32, 256, 1024

    def ours(h: jax.Array, w: jax.Array, t: jax.Array) -> Any:
        return token_logprobs(h, w, t, softcap=3.0, chunk=chunk)

    def naive(h: jax.Array, w: jax.Array, t: jax.Array) -> Any:
        return whole(h, w, t, 3.0)

    logits = 4 * batch * vocabulary  # bytes, a time step
    grown = temporary_bytes(ours, long) - temporary_bytes(ours, short)
    assert grown < (long - short) * logits / 50
    assert temporary_bytes(ours, long) < 5 * chunk * logits < long * logits / 6
    assert temporary_bytes(naive, long) - temporary_bytes(naive, short) >= (long - short) * logits


def test_default_chunk_bounds_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``chunk``, at most CHUNK_LOGITS logits are held, or those of CHUNK_TOKENS tokens."""
    monkeypatch.setattr(logprob, "CHUNK_LOGITS", B * V * 4)
    monkeypatch.setattr(logprob, "CHUNK_TOKENS", 1)
    hidden, table, targets = inputs()
    text = str(jax.make_jaxpr(lambda h, w: token_logprobs(h, w, targets))(hidden, table))
    assert f"f32[{B},4,{V}]" in text
    assert f"f32[{B},{T},{V}]" not in text
    monkeypatch.setattr(logprob, "CHUNK_TOKENS", B * 8)
    assert f"f32[{B},8,{V}]" in str(jax.make_jaxpr(lambda h, w: token_logprobs(h, w, targets))(hidden, table))


# ----------------------------------------------------------------------------------------------------- sharding

ROWS, TIME, WIDTH, VOCABULARY, CHUNK = 16, 64, 24, 416, 8
PARAMETER = PartitionSpec("tensor", "fsdp")
COLLECTIVE = "(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"
MESHES = [{"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"replica": 2, "fsdp": 2, "tensor": 2}, {"tensor": 8}]


def sharded_inputs(mesh: Mesh, table_spec: PartitionSpec) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(4)
    rows = batch_sharding(mesh)
    return (
        jax.device_put(rng.normal(size=(ROWS, TIME, WIDTH)).astype(np.float32), rows),
        jax.device_put(rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32), NamedSharding(mesh, table_spec)),
        jax.device_put(rng.integers(0, VOCABULARY, (ROWS, TIME), np.int32), rows),
    )


def compile_sharded(mesh: Mesh, arguments: tuple[jax.Array, ...], softcap: float | None) -> jax.stages.Compiled:
    """Value and gradients; the table's gradient lies as the parameter would."""
    shardings = (None, (batch_sharding(mesh), NamedSharding(mesh, PARAMETER)))
    step = value_and_grad(partial(token_logprobs, softcap=softcap, chunk=CHUNK))
    with jax.set_mesh(mesh), activation_rules():
        return jax.jit(step, out_shardings=shardings).lower(*arguments).compile()


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("mesh_shape", MESHES, ids=str)
def test_same_on_any_mesh(mesh_shape: dict[str, int], softcap: float | None) -> None:
    mesh = make_mesh(mesh_shape)
    arguments = sharded_inputs(mesh, PARAMETER)
    value, gradients = compile_sharded(mesh, arguments, softcap)(*arguments)
    wanted = value_and_grad(partial(whole, softcap=softcap))(*(np.asarray(x) for x in arguments))
    np.testing.assert_allclose(value, wanted[0], rtol=1e-5)
    for x, y in zip(gradients, wanted[1]):
        assert np.abs(y).max() > 0.1
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())


@pytest.mark.parametrize("table_spec", [PARAMETER, PartitionSpec()], ids=["sharded", "replicated"])
@pytest.mark.parametrize("mesh_shape", MESHES[:3], ids=str)
def test_devices_hold_their_part_of_the_logits(mesh_shape: dict[str, int], table_spec: PartitionSpec) -> None:
    """Wherever the table lies, no device has a chunk's logits of the whole vocabulary, nor sends them."""
    mesh = make_mesh(mesh_shape)
    text = compile_sharded(mesh, sharded_inputs(mesh, table_spec), 2.0).as_text() or ""
    part = VOCABULARY * mesh.shape["replica"] // mesh.size
    rows = ROWS // mesh.shape["replica"]
    logits = [n for n in map(math.prod, float_shapes(text)) if n % part == 0 and n % WIDTH]
    assert max(logits) == rows * CHUNK * part


@pytest.mark.parametrize("mesh_shape", MESHES[:3], ids=str)
def test_no_device_holds_the_table(mesh_shape: dict[str, int]) -> None:
    """Nor its gradient; parts of both change places once, outside the loops, and in them none of that size travels."""
    mesh = make_mesh(mesh_shape)
    text = compile_sharded(mesh, sharded_inputs(mesh, PARAMETER), 2.0).as_text() or ""
    loops = text.split("\nENTRY ")[0]
    part = VOCABULARY * mesh.shape["replica"] // mesh.size
    whole = {VOCABULARY, VOCABULARY // mesh.shape["tensor"]}
    assert not [s for s in float_shapes(text) if WIDTH in s and whole & set(s)]
    sent = [s for result, _ in re.findall(rf"= (.*) {COLLECTIVE}\(", loops) for s in float_shapes(result)]
    assert sent
    assert not [s for s in sent if part in s]


def float_shapes(text: str) -> list[tuple[int, ...]]:
    """Shapes of all float32 arrays in a program's text."""
    return [tuple(map(int, s.split(","))) for s in re.findall(r"\bf32\[([\d,]+)\]", text)]


def test_default_chunk_is_a_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen rows over four devices, the vocabulary over two: eight times as many steps as on one device."""
    monkeypatch.setattr(logprob, "CHUNK_LOGITS", ROWS * VOCABULARY * 4)
    monkeypatch.setattr(logprob, "CHUNK_TOKENS", 1)
    mesh = make_mesh({"replica": 2, "fsdp": 2, "tensor": 2})
    arguments = sharded_inputs(mesh, PARAMETER)
    assert f"f32[{ROWS},4,{VOCABULARY}]" in str(jax.make_jaxpr(token_logprobs)(*arguments))
    with jax.set_mesh(mesh), activation_rules():
        assert f"f32[{ROWS},32,{VOCABULARY}]" in str(jax.make_jaxpr(lambda *x: token_logprobs(*x))(*arguments))
