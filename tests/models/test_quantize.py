"""Quantized kernels against formulas of our own, and a quantized model against the model of its rounded kernels."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpy.typing import NDArray
from scipy.stats import norm

pytest.importorskip("qwix", reason="needs the package qwix")

from c2s_jax.models import Decoder, Gemma2Config, GPTNeoXConfig, lora, make_model, num_parameters
from c2s_jax.models.linear import Linear, linears
from c2s_jax.models.lora import LoRAConfig
from c2s_jax.models.quantize import KINDS, TILE, Codec, dequantize, quantize
from c2s_jax.parallel import make_mesh, parameter_shardings
from c2s_jax.training import StatePlan, make_train_step
from tests.toy import N_TASKS, make_batch

# Every kind of kernel: one and two input axes, one and two and three output axes, with and without bias.
GEMMA = Gemma2Config(
    vocab_size=96,
    embed_dim=32,
    ffw_dim=48,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    query_pre_attn_scalar=20.0,
    sliding_window=8,
    attn_softcap=1.5,
    final_softcap=2.0,
)
NEOX = GPTNeoXConfig(vocab_size=96, embed_dim=32, ffw_dim=64, num_layers=2, num_heads=2)
TILE_HERE = 16  # divides every input axis of these
MODELS = pytest.mark.parametrize("config", [GEMMA, NEOX], ids=["gemma2", "gpt_neox"])
EACH = pytest.mark.parametrize("kind", KINDS)


def make(config: Any, seed: int = 0) -> Decoder:
    """A random model whose biases and norms are not all the same, either."""
    model = make_model(config, nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    state = jax.tree.map(lambda x: x + 0.1 * jnp.asarray(rng.normal(size=x.shape), x.dtype), nnx.state(model))
    nnx.update(model, state)
    return model


def logits_of(model: Decoder, tokens: NDArray) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p, t: nnx.merge(graphdef, p)(t))(params, tokens))


def tokens() -> Any:
    return np.random.default_rng(1).integers(0, GEMMA.vocab_size, (2, 24), np.int32)


def kernels(model: Decoder) -> dict[str, NDArray]:
    return {".".join(path): np.asarray(linear.kernel.get_value()) for path, linear in linears(model)}


# ------------------------------------------------------------------------------------------------------ numerics


def normal_float_table() -> NDArray:
    """The 16 values of NF4: quantiles of N(0, 1), seven negative, zero and eight positive, scaled to [-1, 1].

    Section 3 of the paper; the outermost probability is that of its authors' code.
    """
    offset = (1 - 1 / 32 + 1 - 1 / 30) / 2
    positive = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    return np.sort(np.concatenate([positive, [0.0], negative])) / positive.max()


def tiles(kernel: NDArray, tile: int, axis: int) -> NDArray:
    """The kernel with its tiles along a last axis of their own."""
    moved = np.moveaxis(np.asarray(kernel, np.float64), axis, -1)
    return moved.reshape(*moved.shape[:-1], -1, tile)


def rounded(tiles: NDArray, kind: str) -> NDArray:
    """What is nearest to each value among those that its tile can have, by the definition of the format."""
    greatest = np.abs(tiles).max(-1, keepdims=True)
    if kind == "int8":  # even steps, the greatest magnitude at the rim of the outermost
        steps, scale = np.arange(-128, 128), greatest / 127.5
    else:
        steps, scale = normal_float_table(), greatest
    nearest = np.abs(tiles[..., None] / scale[..., None] - steps).argmin(-1)
    return steps[nearest] * np.asarray(jnp.asarray(scale, jnp.float32).astype(jnp.bfloat16), np.float64)


def decoded(linear: Linear) -> NDArray:
    """The kernel of a quantized linear map, from its codes and scales by their description."""
    codes, scales = np.asarray(linear.kernel.get_value()), np.asarray(linear.kernel_scale.get_value(), np.float32)
    axis = codes.ndim - len(linear.out_axes) - 1
    if codes.dtype == np.uint8:
        pairs = np.stack([codes % 16, codes // 16], axis)  # by half tile: all low bits, then all high bits
        shape = codes.shape[:axis], codes.shape[axis + 1 :]
        pairs = pairs.reshape(*shape[0], 2, scales.shape[axis], -1, *shape[1]).swapaxes(axis, axis + 1)
        codes = normal_float_table()[pairs.reshape(*shape[0], -1, *shape[1])]
    return codes * np.repeat(scales, codes.shape[axis] // scales.shape[axis], axis)


@EACH
@pytest.mark.parametrize("axis", [-2, -3])
def test_every_value_becomes_the_nearest(kind: str, axis: int) -> None:
    """Values of many magnitudes, a stack of three layers, tiles along another axis than the last."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 128, 64, 10)) * 10.0 ** rng.integers(-3, 3, (3, 128, 64, 10))
    kernel = kernel.astype(np.float32)
    codec = Codec(kind, 32, axis, 3)
    codes, scales = codec.encode(jnp.asarray(kernel))
    assert codec.shape(codes.shape) == kernel.shape
    decode = jax.jit(jax.vmap(lambda c, s: codec.decode(c, s, jnp.dtype("float32"))))
    found, wanted = tiles(decode(codes, scales), 32, axis), rounded(tiles(kernel, 32, axis), kind)
    close = np.isclose(found, wanted, rtol=1e-5, atol=0)
    rim = np.abs(tiles(kernel, 32, axis))
    rim = rim == rim.max(-1, keepdims=True)
    assert close[~rim].mean() > 0.9999  # a value halfway between two steps may go either way
    np.testing.assert_allclose(found[rim], wanted[rim], rtol=0.01)  # where int8 has such a tie by design


@pytest.mark.parametrize(("kind", "low", "high"), [("int8", 0.003, 0.01), ("nf4", 0.08, 0.1)])
def test_error_on_normal_weights(kind: str, low: float, high: float) -> None:
    """Relative to the weights; nf4's is about 0.09 in blocks of 64, int8's is twelve times smaller."""
    kernel = jax.random.normal(jax.random.key(0), (4096, 64))
    codec = Codec(kind, TILE, -2, 2)
    error = codec.decode(*codec.encode(kernel), jnp.dtype("float32")) - kernel
    assert low < float(jnp.linalg.norm(error) / jnp.linalg.norm(kernel)) < high


def test_constant_and_extreme_tiles() -> None:
    """A tile of zeros stays zeros; the greatest magnitude of a tile is kept, of either sign."""
    kernel = jnp.zeros((64, 4)).at[5, 1].set(-3.0).at[7, 2].set(2.0).at[:, 3].set(1e-6)
    for kind, least in (("int8", 0.99), ("nf4", 0.996)):
        codec = Codec(kind, 64, -2, 2)
        found = codec.decode(*codec.encode(kernel), jnp.dtype("float32"))
        np.testing.assert_array_equal(found[:, 0], 0.0)
        np.testing.assert_allclose(found, kernel, rtol=1 - least, atol=0)


# --------------------------------------------------------------------------------------------------------- models


def pair(config: Any, kind: str) -> tuple[Decoder, Decoder]:
    """A model with the numbers of a quantized one, and the quantized one."""
    plain, model = make(config), make(config)
    quantize(model, kind, tile=TILE_HERE)
    stored = dict(linears(model))
    for path, linear in linears(plain):
        linear.kernel[...] = jnp.asarray(decoded(stored[path]), jnp.float32)
    return plain, model


@EACH
@MODELS
def test_a_quantized_model_computes_with_rounded_kernels(kind: str, config: Any) -> None:
    """The same logits as the model whose kernels are rounded; everything else is untouched."""
    plain, model = pair(config, kind)
    found, wanted = logits_of(model, tokens()), logits_of(plain, tokens())
    assert np.abs(logits_of(make(config), tokens()) - wanted).max() > 1e-3  # rounding is seen
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())
    others = nnx.filterlib.to_predicate(nnx.Not(nnx.PathContains("kernel")))
    for path, value in nnx.to_flat_state(nnx.state(make(config))):
        if others(path, value):
            kept = dict(nnx.to_flat_state(nnx.state(model)))[path]
            np.testing.assert_array_equal(kept.get_value(), value.get_value())


@EACH
def test_bytes_and_shapes(kind: str) -> None:
    """Kernels take what is promised; the model's own shapes are unchanged."""
    config = dataclasses.replace(GEMMA, embed_dim=128, ffw_dim=192, head_dim=64)
    model = nnx.eval_shape(lambda: make(config))
    wanted = {path: lora.shapes(linear) for path, linear in linears(model)}
    count = sum(math.prod(linear.kernel.get_value().shape) for _, linear in linears(model))
    quantize_abstract(model, kind)
    assert {path: lora.shapes(linear) for path, linear in linears(model)} == wanted
    stored = [p.get_value() for _, linear in linears(model) for p in (linear.kernel, linear.kernel_scale)]
    found = sum(x.size * x.dtype.itemsize for x in stored)
    assert found / count == {"int8": 1.0, "nf4": 0.5}[kind] + 2 / TILE
    assert {str(x.dtype) for x in stored} == {{"int8": "int8", "nf4": "uint8"}[kind], "bfloat16"}


def quantize_abstract(model: Decoder, kind: str) -> None:
    """As a plan of a run does: nothing is computed."""
    graphdef, params = nnx.split(model)

    def quantized(params: nnx.State) -> Decoder:
        inner = nnx.merge(graphdef, params)
        quantize(inner, kind)
        return inner

    found = nnx.eval_shape(quantized, params)
    for path, linear in linears(model):
        other = dict(linears(found))[path]
        linear.kernel, linear.kernel_scale, linear.codec = other.kernel, other.kernel_scale, other.codec


@EACH
def test_back_to_numbers(kind: str) -> None:
    model = make(NEOX)
    quantize(model, kind, tile=TILE_HERE)
    wanted = logits_of(model, tokens())
    dequantize(model, "float32")
    np.testing.assert_allclose(logits_of(model, tokens()), wanted, rtol=0, atol=1e-5)
    assert {k.dtype for k in kernels(model).values()} == {np.dtype("float32")}
    assert num_parameters(model) == num_parameters(make(NEOX))


@EACH
@MODELS
def test_on_eight_devices(kind: str, config: Any) -> None:
    """Codes and scales are laid out by the rules, and the sharded model is the same."""
    model = make(config)
    quantize(model, kind, tile=TILE_HERE)
    wanted = logits_of(model, tokens())
    mesh = make_mesh({"fsdp": 4, "tensor": 2}, jax.devices())
    state = nnx.state(model, nnx.Param)
    placed = jax.device_put(state, parameter_shardings(state, mesh))
    nnx.update(model, placed)
    spread = [x for x in jax.tree.leaves(placed) if not x.sharding.is_fully_replicated]
    assert {str(x.dtype) for x in spread} >= {"int8" if kind == "int8" else "uint8", "bfloat16"}
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(logits_of(model, tokens()), wanted, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------------- training


@EACH
def test_only_the_adapter_learns(kind: str) -> None:
    """Steps lower the loss through quantized kernels, and no code or scale changes."""
    config = dataclasses.replace(GEMMA, embed_dim=128, ffw_dim=128, head_dim=64, vocab_size=64)
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    optimizer = optax.adam(1e-2)
    plan = StatePlan(config, optimizer, mesh, adapter=LoRAConfig(rank=4), quantized=kind)
    state = plan.create(0)
    assert {path[-1] for path, _ in nnx.to_flat_state(state.params)} == {"lora_a", "lora_b"}
    before = jax.tree.map(np.asarray, state.frozen)
    first = jax.tree.map(np.asarray, state.params)
    step = make_train_step(plan.graphdef, optimizer, mesh, plan.shardings, n_tasks=N_TASKS)
    losses = []
    for _ in range(8):
        state, metrics = step(state, make_batch(rows=4, seed=0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0], losses
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, state.frozen), before)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(state.params)):
        assert np.abs(a - np.asarray(b)).max() > 0


@EACH
def test_gradients_are_those_of_the_rounded_model(kind: str) -> None:
    """Of the adapter, through the second decoding in the backward pass."""
    plain, model = pair(GEMMA, kind)
    found, wanted = adapter_gradients(model), adapter_gradients(plain)
    for path, value in wanted.items():
        assert np.abs(value).max() > 0
        np.testing.assert_allclose(found[path], value, rtol=0, atol=1e-3 * np.abs(value).max(), err_msg=str(path))


def adapter_gradients(model: Decoder) -> dict[Any, NDArray]:
    lora.add(model, LoRAConfig(rank=2), nnx.Rngs(3))
    for linear in lora.adapted(model):
        linear.lora_b[...] += 0.1  # or lora_a would get no gradient
    graphdef, base, adapter = lora.split(model)
    gradients = jax.jit(jax.grad(lambda a: jnp.square(nnx.merge(graphdef, base, a)(tokens())).mean()))(adapter)
    return {path: np.asarray(v.get_value()) for path, v in nnx.to_flat_state(gradients)}


def test_backward_keeps_no_decoded_kernel() -> None:
    """Without rematerialisation of blocks, too, a kernel is decoded again rather than kept for each layer."""
    config = dataclasses.replace(GEMMA, embed_dim=64, ffw_dim=8192, num_layers=8, head_dim=64, vocab_size=64)
    kernels = 8 * 3 * 64 * 8192 * 4  # of the feed-forward, all layers, in float32

    def temporaries(kind: str) -> int:
        def make_adapted() -> Decoder:
            model = make_model(config, nnx.Rngs(0))
            quantize(model, kind)
            lora.add(model, LoRAConfig(rank=2), nnx.Rngs(1))
            return model

        graphdef, adapter, base = nnx.split(nnx.eval_shape(make_adapted), nnx.LoRAParam, ...)
        loss = lambda a, b: nnx.merge(graphdef, a, b)(jnp.zeros((1, 4), jnp.int32)).mean()  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(adapter, base).compile().memory_analysis().temp_size_in_bytes

    assert temporaries("int8") < kernels / 2


# --------------------------------------------------------------------------------------------------------- errors


def test_errors() -> None:
    model = make(GEMMA)
    with pytest.raises(ValueError, match="kind 'int3' is not one of int8, nf4"):
        quantize(model, "int3")
    with pytest.raises(ValueError, match=r"blocks\.\S+: choose a tile that divides the \d+ values of \w+, not 64"):
        quantize(model, "int8")
    with pytest.raises(ValueError, match="the tile must be even"):
        quantize(make(GEMMA), "nf4", tile=1)
    model = make(GEMMA)
    quantize(model, "int8", tile=TILE_HERE)
    with pytest.raises(ValueError, match=r"blocks\.\S+ is quantized already"):
        quantize(model, "nf4", tile=TILE_HERE)
    lora.add(model, LoRAConfig(rank=2), nnx.Rngs(0))
    with pytest.raises(ValueError, match="dequantize"):
        lora.merge(model)
