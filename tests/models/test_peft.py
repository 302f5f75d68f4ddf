"""Adapter files: written for and read from the ``peft`` package."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("peft", reason="the oracle of adapter files; install c2s_jax[test]")

import torch
from flax import nnx
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from c2s_jax.models import Decoder, lora
from c2s_jax.models.peft import CONFIG, WEIGHTS, load_adapter, save_adapter
from c2s_jax.training.step import loss_sums
from tests.models import parity
from tests.models.hf_weights import hf_model, parameters
from tests.models.parity import TOLERANCE, VISIBLE, hf_logits, logits_of
from tests.models.peft_oracle import (
    CONFIGS,
    SUBSETS,
    TARGETS,
    TOKENS,
    adapted,
    opened_by_peft,
    pair,
    written_by_peft,
)

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

both = pytest.mark.parametrize("architecture", TARGETS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with parity.one_torch_thread():
        yield


def assert_same(found: NDArray, wanted: NDArray, architecture: str) -> None:
    """Equal logits, that are not those of the base."""
    assert np.abs(wanted - hf_logits(hf_model(CONFIGS[architecture]), TOKENS)).max() > 0.1
    # Logits are up to 6 and adapters this large carry rounding on: twice the tolerance of bare models.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2 * TOLERANCE)


# ------------------------------------------------------------------------------------------- there and back


@both
@pytest.mark.parametrize("subset", [False, True])
def test_peft_opens_what_we_write(tmp_path: Path, architecture: str, subset: bool) -> None:
    ours, theirs = SUBSETS[architecture] if subset else (("all",), TARGETS[architecture])
    model = adapted(architecture, ours, dropout=0.25)
    save_adapter(model, tmp_path / "adapter", base_model="some/base")
    wrapped = opened_by_peft(tmp_path / "adapter", architecture)
    assert_same(hf_logits(wrapped, TOKENS), logits_of(model, TOKENS), architecture)
    config = wrapped.peft_config["default"]
    assert set(config.target_modules) == set(theirs)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 7, 0.25)
    assert config.base_model_name_or_path == "some/base"
    assert {p.name for p in tmp_path.glob("**/*")} == {"adapter", CONFIG, WEIGHTS}


@both
@pytest.mark.parametrize("subset", [False, True])
def test_we_open_what_peft_writes(tmp_path: Path, architecture: str, subset: bool) -> None:
    targets = SUBSETS[architecture][1] if subset else TARGETS[architecture]
    wanted = written_by_peft(tmp_path / "theirs", architecture, target_modules=targets, lora_dropout=0.25)
    _, model = pair(architecture)
    load_adapter(model, tmp_path / "theirs")
    assert_same(logits_of(model, TOKENS), wanted, architecture)
    assert {linear.lora_dropout for linear in lora.adapted(model)} == {0.25}
    save_adapter(model, tmp_path / "ours")
    before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        np.testing.assert_array_equal(value, after[name], err_msg=name)


@both
def test_round_trip_is_exact(tmp_path: Path, architecture: str) -> None:
    model = adapted(architecture, dropout=0.1)
    save_adapter(model, tmp_path / "adapter")
    other = adapted(architecture, SUBSETS[architecture][0])  # what it carries is replaced, all of it
    load_adapter(other, tmp_path / "adapter")
    assert nnx.graphdef(other) == nnx.graphdef(model)
    assert jax.tree.structure(nnx.state(other)) == jax.tree.structure(nnx.state(model))  # with the scale
    wanted, found = parameters(nnx.state(model)), parameters(nnx.state(other))
    for name, value in wanted.items():
        assert value.dtype == found[name].dtype
        np.testing.assert_array_equal(value, found[name], err_msg=name)


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "rslora": ("gemma2", {"use_rslora": True}),
    "all-linear": ("gpt_neox", {"target_modules": "all-linear"}),
    "regular-expression": ("gemma2", {"target_modules": r".*\.self_attn\.[qv]_proj"}),
    # One kind of Gemma-2's layers.
    "local-layers": ("gemma2", {"target_modules": [f"model.layers.{i}.mlp.up_proj" for i in (0, 2)]}),
    "patterns": (
        "gpt_neox",
        {"rank_pattern": {"dense": 5, r"mlp\..*": 2}, "alpha_pattern": {"query_key_value": 20, "dense_h_to_4h": 1}},
    ),
    "patterns-by-layer": (
        "gemma2",
        {"rank_pattern": {r"layers\.[02]\..*": 4}, "alpha_pattern": {"v_proj": 3, r"layers\.[13]\.mlp.*": 2}},
    ),
    "rslora-and-patterns": ("gpt_neox", {"use_rslora": True, "rank_pattern": {"dense": 5}}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_supported(tmp_path: Path, name: str) -> None:
    """They act as in ``peft``, and survive being written again."""
    architecture, settings = SETTINGS[name]
    wanted = written_by_peft(tmp_path / "theirs", architecture, **settings)
    _, model = pair(architecture)
    load_adapter(model, tmp_path / "theirs")
    found = logits_of(model, TOKENS)
    assert_same(found, wanted, architecture)
    save_adapter(model, tmp_path / "ours")
    np.testing.assert_allclose(
        hf_logits(opened_by_peft(tmp_path / "ours", architecture), TOKENS), wanted, rtol=0, atol=TOLERANCE
    )
    load_adapter(model, tmp_path / "ours")
    np.testing.assert_allclose(logits_of(model, TOKENS), found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_smaller_types_are_widened(tmp_path: Path, dtype: Any) -> None:
    written_by_peft(tmp_path, "gpt_neox")
    tensors = {name: value.astype(dtype) for name, value in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    _, model = pair("gpt_neox")
    load_adapter(model, tmp_path)
    assert_same(logits_of(model, TOKENS), hf_logits(opened_by_peft(tmp_path, "gpt_neox"), TOKENS), "gpt_neox")


@both
def test_merging_is_that_of_peft(tmp_path: Path, architecture: str) -> None:
    written_by_peft(tmp_path, architecture)
    merged = opened_by_peft(tmp_path, architecture).merge_and_unload()
    _, model = pair(architecture)
    load_adapter(model, tmp_path)
    lora.merge(model)
    assert_same(logits_of(model, TOKENS), hf_logits(merged, TOKENS), architecture)


@both
def test_gradients_are_those_of_autograd(tmp_path: Path, architecture: str) -> None:
    """Of A and of B of every map, for the loss that training minimises, weights included."""
    written_by_peft(tmp_path / "theirs", architecture)
    _, model = pair(architecture)
    load_adapter(model, tmp_path / "theirs")
    rng = np.random.default_rng(0)
    weights = rng.random(TOKENS.shape).astype(np.float32) * (rng.random(TOKENS.shape) < 0.7)
    targets = rng.integers(0, 97, TOKENS.shape, np.int32)

    wrapped = opened_by_peft(tmp_path / "theirs", architecture)
    for name, p in wrapped.named_parameters():
        p.requires_grad = "lora_" in name
    log_p = wrapped(torch.from_numpy(TOKENS).long()).logits.log_softmax(-1)
    picked = log_p.gather(-1, torch.from_numpy(targets).long()[..., None])[..., 0]
    loss = -(picked * torch.from_numpy(weights)).sum()
    loss.backward()

    graphdef, base, adapter = lora.split(model)
    batch = {
        "tokens": TOKENS,
        "targets": targets,
        "loss_weights": weights,
        "positions": np.broadcast_to(np.arange(TOKENS.shape[1], dtype=np.int32), TOKENS.shape),
        "segment_ids": np.ones_like(TOKENS),
        "task_ids": np.zeros_like(TOKENS),
    }

    def our_loss(adapter: nnx.State) -> jax.Array:
        return loss_sums(graphdef, nnx.merge_state(base, adapter), batch, 1, None)[0]

    found, gradients = jax.jit(jax.value_and_grad(our_loss))(adapter)
    np.testing.assert_allclose(found, loss.item(), rtol=1e-5)
    nnx.update(model, gradients)
    save_adapter(model, tmp_path / "gradients")  # a way to Hugging Face's names and layout
    ours = load_file(tmp_path / "gradients" / WEIGHTS)
    theirs = {n.replace(".default", ""): p.grad.numpy() for n, p in wrapped.named_parameters() if "lora_" in n}
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        scale = np.abs(wanted).max()
        assert scale > 1e-4, name
        np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=2e-4 * scale, err_msg=name)


# ------------------------------------------------------------------------------------------------- mutations


def forget_scale(model: Decoder) -> None:
    for linear in lora.adapted(model):
        assert linear.lora_b is not None
        linear.lora_b = nnx.LoRAParam(linear.lora_b.get_value(), **{**linear.lora_b.get_metadata(), "scale": 1.0})


def reverse_layers(model: Decoder) -> None:
    for linear in lora.adapted(model):
        assert linear.lora_b is not None
        linear.lora_b[...] = linear.lora_b[...][::-1]


def swap_kinds(model: Any) -> None:
    a, b = model.blocks.local_layer.attention, model.blocks.global_layer.attention
    a.q.lora_b, b.q.lora_b = b.q.lora_b, a.q.lora_b


def transpose_heads(model: Any) -> None:
    """[heads, head_dim] read in the other order."""
    q = model.blocks.local_layer.attention.q
    b = q.lora_b[...]
    q.lora_b[...] = jnp.swapaxes(b.reshape(*b.shape[:2], b.shape[3], b.shape[2]), 2, 3)


def transpose_b(model: Any) -> None:
    """[out, rank] read as [rank, out]."""
    b = model.blocks.ffw.up.lora_b[...]
    model.blocks.ffw.up.lora_b[...] = jnp.swapaxes(b, 1, 2).reshape(b.shape)


def split_before_heads(model: Any) -> None:
    """Rows of query_key_value read as (3, heads, head_dim)."""
    qkv = model.blocks.attention.qkv
    depth, rank, H, _, E = qkv.lora_b[...].shape
    qkv.lora_b[...] = jnp.swapaxes(qkv.lora_b[...].reshape(depth, rank, 3, H, E), 2, 3)


@pytest.mark.parametrize(
    ("architecture", "mutate"),
    [
        ("gemma2", forget_scale),
        ("gemma2", reverse_layers),
        ("gemma2", swap_kinds),
        ("gemma2", transpose_heads),
        ("gpt_neox", forget_scale),
        ("gpt_neox", reverse_layers),
        ("gpt_neox", transpose_b),
        ("gpt_neox", split_before_heads),
    ],
)
def test_a_wrong_adapter_is_visible(architecture: str, mutate: Callable[[Any], None]) -> None:
    model = adapted(architecture)
    wanted = logits_of(model, TOKENS)
    mutate(model)
    assert np.abs(logits_of(model, TOKENS) - wanted).max() > VISIBLE
