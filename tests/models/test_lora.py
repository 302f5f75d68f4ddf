"""Low-rank updates of linear maps: what they add, how they start, that they can be merged and swapped."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.generation import Sampler, Sampling
from c2s_jax.models import Decoder, GPTNeoXConfig, gemma2, gpt_neox, lora, make_model, num_parameters
from c2s_jax.models.linear import Linear, dropout, linears
from c2s_jax.parallel import make_mesh, parameter_shardings
from tests.models.adapters import randomize
from tests.toy import MODEL

CONFIGS: dict[str, Any] = {
    "gemma2": MODEL,
    "gpt_neox": GPTNeoXConfig(vocab_size=64, embed_dim=16, ffw_dim=32, num_layers=3, num_heads=2),
}
MAPS = {"gemma2": {"q", "k", "v", "o", "gate", "up", "down"}, "gpt_neox": {"qkv", "o", "up", "down"}}
VISIBLE = 1e-2

both = pytest.mark.parametrize("architecture", CONFIGS)


def make(architecture: str, seed: int = 0, **changes: Any) -> Decoder:
    model = make_model(dataclasses.replace(CONFIGS[architecture], **changes), nnx.Rngs(seed))
    nnx.update(model, jax.tree.map(lambda p: 2 * p, nnx.state(model)))
    return model


@functools.cache
def compiled(graphdef: nnx.GraphDef) -> Callable[[nnx.State], jax.Array]:
    tokens = np.random.default_rng(0).integers(1, 64, (2, 20), np.int32)
    return jax.jit(lambda params: nnx.merge(graphdef, params)(tokens))


def logits(model: Decoder) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(compiled(graphdef)(params))


def arrays(tree: Any) -> dict[str, NDArray]:
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree.leaves_with_path(tree)}


# -------------------------------------------------------------------------------------------------- one map

IN, OUT, RANK = {"heads": 2, "head_dim": 3}, {"embed": 4, "ffw": 5}, 3


def one_map(scale: float, *, rate: float = 0.0, name: str = "o") -> Linear:
    linear = Linear(IN, OUT, bias=True, rngs=nnx.Rngs(0))
    assert linear.bias is not None
    linear.bias[...] = jnp.arange(20.0).reshape(4, 5)
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((2, 3, RANK), (RANK, 4, 5)))
    lora.attach(name, linear, a, b, scale=scale, dropout=rate)
    return linear


def float64(p: nnx.Variable | None) -> NDArray:
    assert p is not None
    return np.asarray(p.get_value(), np.float64)


def test_the_update_of_one_map() -> None:
    """x · (W + scale · A B) + bias, written out over several axes."""
    linear = one_map(1.75)
    x = np.random.default_rng(1).standard_normal((7, 2, 3))
    kernel, bias, a, b = (float64(p) for p in (linear.kernel, linear.bias, linear.lora_a, linear.lora_b))
    wanted = np.einsum("nhe,hedf->ndf", x, kernel + 1.75 * np.einsum("her,rdf->hedf", a, b)) + bias
    np.testing.assert_allclose(linear(jnp.asarray(x, jnp.float32)), wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(wanted - np.einsum("nhe,hedf->ndf", x, kernel) - bias).max() > 1


def test_dropout_thins_the_input_of_the_update_alone() -> None:
    linear = Linear({"embed": 100}, {"ffw": 100}, rngs=nnx.Rngs(0))
    linear.kernel[...] = jnp.zeros((100, 100))
    lora.attach("up", linear, jnp.eye(100), jnp.eye(100), scale=1.0, dropout=0.3)
    x = jax.random.normal(jax.random.key(0), (500, 100))
    y = np.asarray(linear(x, jax.random.key(1)))
    kept = y != 0
    np.testing.assert_allclose(kept.mean(), 0.7, atol=0.01)
    np.testing.assert_allclose(y[kept], (np.asarray(x) / 0.7)[kept], rtol=1e-5)
    np.testing.assert_array_equal(linear(x), x)  # off without a key
    linear.kernel[...] = jnp.eye(100)
    np.testing.assert_allclose(linear(x, jax.random.key(1)), x + y, rtol=1e-5, atol=1e-5)  # the base sees all of x


def test_masks_differ_from_map_to_map_and_from_other_dropout() -> None:
    key, x = jax.random.key(3), jnp.ones((50, 2, 3))
    masks = {name: np.asarray(one_map(1.0, rate=0.5, name=name)(x, key)) for name in MAPS["gemma2"] | {"qkv"}}
    for a in masks:
        np.testing.assert_array_equal(masks[a], one_map(1.0, rate=0.5, name=a)(x, key))
        assert all(a == b or np.abs(masks[a] - masks[b]).max() > 0.1 for b in masks)
    # Layers give jax.random.split(key) to the dropout of residual updates.
    thinned = [dropout(x, 0.5, k) for k in jax.random.split(key, 8)]
    plain = one_map(1.0)
    assert all(np.abs(plain(z) - mask).max() > 0.1 for z in thinned for mask in masks.values())


# ------------------------------------------------------------------------------------------------ whole models


@both
def test_a_new_adapter_changes_nothing(architecture: str) -> None:
    model = make(architecture)
    before, wanted = arrays(nnx.state(model)), logits(model)
    lora.add(model, lora.LoRAConfig(rank=2), nnx.Rngs(1))
    np.testing.assert_array_equal(logits(model), wanted)
    _, base, adapter = lora.split(model)
    assert arrays(base).keys() == before.keys()
    assert len(jax.tree.leaves(adapter)) == 2 * len(list(linears(model)))
    for linear in lora.adapted(model):
        a, b = float64(linear.lora_a), float64(linear.lora_b)
        bound = np.prod(a.shape[1:-1]) ** -0.5  # Kaiming's uniform, as is usual for A
        assert 0.8 * bound < np.abs(a).max() <= bound
        assert not np.array_equal(a[0], a[1])  # drawn for each layer
        assert not b.any()
    taken = arrays(adapter)
    randomize(model)
    assert np.abs(logits(model) - wanted).max() > VISIBLE
    for name, value in arrays(adapter).items():  # a state is not a view of the model
        np.testing.assert_array_equal(value, taken[name])
    lora.remove(model)
    np.testing.assert_array_equal(logits(model), wanted)
    assert nnx.graphdef(model) == nnx.graphdef(make(architecture))


@both
def test_targets(architecture: str) -> None:
    """Each map can be adapted alone; with "all" every one is; each one's update reaches the logits."""

    def adapted(*targets: str) -> Decoder:
        model = make(architecture)
        lora.add(model, lora.LoRAConfig(rank=2, targets=targets), nnx.Rngs(1))
        return model

    def names(model: Decoder) -> set[str]:
        return {path[-1] for path, linear in linears(model) if linear.lora_a is not None}

    wanted = logits(make(architecture))
    assert names(adapted("all")) == MAPS[architecture]
    assert lora.LoRAConfig(targets="all") == lora.LoRAConfig(targets=("all",))
    for name in MAPS[architecture]:
        assert names(adapted(name)) == {name}
        model = adapted("all")
        randomize(model)
        for path, linear in linears(model):
            if path[-1] != name and linear.lora_b is not None:
                linear.lora_b[...] = jnp.zeros_like(linear.lora_b[...])
        assert np.abs(logits(model) - wanted).max() > VISIBLE, name


@both
def test_the_scale_is_alpha_over_rank(architecture: str) -> None:
    """Twice alpha is twice B."""
    one, two = make(architecture), make(architecture)
    lora.add(one, lora.LoRAConfig(rank=4, alpha=8.0), nnx.Rngs(1))
    lora.add(two, lora.LoRAConfig(rank=4, alpha=16.0), nnx.Rngs(1))
    randomize(one)
    randomize(two)
    assert np.abs(logits(one) - logits(two)).max() > VISIBLE
    for linear in lora.adapted(one):
        assert linear.lora_b is not None
        assert linear.lora_b.get_metadata("scale") == 2.0
        linear.lora_b[...] = 2 * linear.lora_b[...]
    np.testing.assert_allclose(logits(one), logits(two), rtol=0, atol=1e-5)


def test_bad_configurations() -> None:
    for bad in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}, {"targets": ()}):
        with pytest.raises(ValueError, match="lora: need rank >= 1"):
            lora.LoRAConfig(**bad)  # type: ignore[arg-type]
    model = make("gemma2")
    with pytest.raises(ValueError, match="the model has no qkv; it has down, gate, k, o, q, up, v"):
        lora.add(model, lora.LoRAConfig(targets=("q", "qkv")), nnx.Rngs(0))
    assert not lora.adapted(model)
    lora.add(model, lora.LoRAConfig(targets=("q",)), nnx.Rngs(0))
    with pytest.raises(ValueError, match="carries an adapter already; merge or remove it first"):
        lora.add(model, lora.LoRAConfig(targets=("v",)), nnx.Rngs(0))


# ----------------------------------------------------------------------------------------------------- merging


@both
def test_merged_equals_unmerged(architecture: str) -> None:
    model = make(architecture)
    plain = logits(model)
    lora.add(model, lora.LoRAConfig(rank=3, alpha=5.0), nnx.Rngs(1))
    randomize(model)
    wanted = logits(model)
    graphdef, state = nnx.split(model)
    assert np.abs(wanted - plain).max() > VISIBLE
    lora.merge(model)
    np.testing.assert_allclose(logits(model), wanted, rtol=0, atol=1e-4)
    # The model is again one without an adapter; what was taken from it before is as it was.
    assert not lora.adapted(model)
    assert nnx.graphdef(model) == nnx.graphdef(make(architecture))
    np.testing.assert_array_equal(logits(nnx.merge(graphdef, state)), wanted)


def test_merging_into_bfloat16_rounds_once() -> None:
    model = make("gemma2", param_dtype="bfloat16")
    lora.add(model, lora.LoRAConfig(rank=3, alpha=5.0, targets=("o",)), nnx.Rngs(1))
    randomize(model)
    linear = lora.adapted(model)[0]
    kernel, a, b = (float64(p) for p in (linear.kernel, linear.lora_a, linear.lora_b))
    exact = (kernel + 5 / 3 * np.einsum("pher,prd->phed", a, b)).astype(np.float32)
    lora.merge(model)
    found = linear.kernel.get_value()
    assert found.dtype == jnp.bfloat16
    differing = np.asarray(found) != exact.astype(jnp.bfloat16)  # float32's last bit may decide where bfloat16 ties
    assert differing.mean() < 1e-3


def test_merging_on_a_mesh() -> None:
    """The same numbers as on one device, and every kernel stays where it was."""
    alone, sharded = make("gemma2"), make("gemma2")
    for model in (alone, sharded):
        lora.add(model, lora.LoRAConfig(rank=3), nnx.Rngs(1))
        randomize(model)
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    state = nnx.state(sharded)
    nnx.update(sharded, jax.device_put(state, parameter_shardings(state, mesh)))
    before = [linear.kernel.get_value() for _, linear in linears(sharded)]
    lora.merge(alone)
    lora.merge(sharded)
    for kernel, (_, a), (path, b) in zip(before, linears(alone), linears(sharded)):
        found = b.kernel.get_value()
        assert found.sharding.is_equivalent_to(kernel.sharding, kernel.ndim), path
        np.testing.assert_allclose(found, a.kernel.get_value(), rtol=1e-5, atol=1e-6)
        assert np.abs(np.asarray(found) - np.asarray(kernel)).max() > VISIBLE


# ------------------------------------------------------------------------------------ many adapters on one base


def adapters(architecture: str, *alphas: float) -> tuple[Decoder, list[nnx.State]]:
    """A model and adapters for it, the last of which it carries."""
    model, states = make(architecture), []
    for i, alpha in enumerate(alphas):
        lora.remove(model)
        lora.add(model, lora.LoRAConfig(rank=2, alpha=alpha), nnx.Rngs(1))
        randomize(model, seed=i)
        states.append(lora.adapter_state(model))
    return model, states


@both
def test_swapped_adapters_share_one_program(architecture: str) -> None:
    model, states = adapters(architecture, 4.0, 4.0)
    graphdef, base, last = lora.split(model)
    assert arrays(last).keys() == arrays(states[-1]).keys()
    sampler = Sampler(graphdef, stop_ids=(), batch_size=2, mesh=make_mesh({"fsdp": 1}, jax.devices()[:1]))
    prompts = [np.arange(1, 6, dtype=np.int32), np.arange(20, 33, dtype=np.int32)]
    options: Any = dict(max_new_tokens=16, sampling=Sampling(temperature=0))
    found = [sampler(nnx.merge_state(base, s), prompts, **options) for s in (*states, states[0])]
    assert sampler.compiled == 1
    for state, samples in zip((*states, states[0]), found):
        alone = nnx.merge(graphdef, base, state)
        lora.merge(alone)
        merged_graph, merged = nnx.split(alone)
        plain = Sampler(merged_graph, stop_ids=(), batch_size=2, mesh=make_mesh({"fsdp": 1}, jax.devices()[:1]))
        np.testing.assert_array_equal(samples.tokens, plain(merged, prompts, **options).tokens)
    assert (found[0].tokens != found[1].tokens).any()
    np.testing.assert_array_equal(found[0].tokens, found[2].tokens)


def test_an_adapter_brings_its_own_scale() -> None:
    """In another adapter's model, too: it compiles again rather than run with the other's scale."""
    model, (first, second) = adapters("gemma2", 2.0, 8.0)
    graphdef, base, _ = lora.split(model)
    assert np.abs(logits(nnx.merge(graphdef, base, first)) - logits(nnx.merge(graphdef, base, second))).max() > VISIBLE
    small, _ = adapters("gemma2", 2.0)
    np.testing.assert_array_equal(logits(nnx.merge(graphdef, base, first)), logits(small))


# ------------------------------------------------------------------------------------------------ released sizes


@pytest.mark.parametrize(
    ("config", "targets", "millions"),
    [
        (gemma2.Gemma2Config(**gemma2.RELEASED["2b"]), ("q", "v"), 3.2),
        (gemma2.Gemma2Config(**gemma2.RELEASED["2b"]), ("all",), 20.8),
        (gemma2.Gemma2Config(**gemma2.RELEASED["27b"]), ("all",), 114.2),
        (gpt_neox.GPTNeoXConfig(**gpt_neox.RELEASED["410m"]), ("qkv",), 1.6),
        (gpt_neox.GPTNeoXConfig(**gpt_neox.RELEASED["410m"]), ("all",), 6.3),
    ],
    ids=["2b-qv", "2b", "27b", "410m-qkv", "410m"],
)
def test_sizes_of_adapters(config: Any, targets: tuple[str, ...], millions: float) -> None:
    """rank · (in + out) numbers a map: 16 · 26 · (2 · 2304 + 2048 + 1024) for q and v of 2B, and so on."""

    def build() -> Decoder:
        model = make_model(config, nnx.Rngs(0))
        lora.add(model, lora.LoRAConfig(rank=16, targets=targets), nnx.Rngs(0))
        return model

    state = lora.adapter_state(nnx.eval_shape(build))
    assert round(num_parameters(state) / 1e6, 1) == millions
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
