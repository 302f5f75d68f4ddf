"""Our Gemma-2 against Hugging Face's, and the proof that the comparison sees every feature."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models import Gemma2, Gemma2Config, gemma2
from tests.models import parity
from tests.models.hf_weights import TINY, hf_model, our_model
from tests.models.parity import TOLERANCE, VISIBLE, Identity, logits_of

T = 64


@pytest.fixture(scope="module")
def theirs() -> Iterator[transformers.Gemma2ForCausalLM]:
    with parity.one_torch_thread():
        yield hf_model(TINY)


@pytest.fixture(scope="module")
def tokens() -> NDArray:
    return parity.random_tokens(TINY, (2, T), seed=1)


@pytest.fixture(scope="module")
def expected(theirs: transformers.Gemma2ForCausalLM, tokens: NDArray) -> NDArray:
    return parity.hf_logits(theirs, tokens)


@pytest.mark.parametrize("chunk", [512, 16])
def test_logits(theirs: transformers.Gemma2ForCausalLM, tokens: NDArray, chunk: int) -> None:
    """With attention in one piece and in chunks of queries."""
    parity.check_logits(theirs, change(attention_chunk=chunk), tokens)


def test_hidden_states(theirs: transformers.Gemma2ForCausalLM, tokens: NDArray) -> None:
    parity.check_hidden_states(theirs, TINY, tokens)


@pytest.mark.parametrize(("remat", "chunk"), [("none", 512), ("full", 16), ("dots", 16)])
def test_loss_and_gradients(theirs: transformers.Gemma2ForCausalLM, tokens: NDArray, remat: str, chunk: int) -> None:
    parity.check_loss_and_gradients(theirs, change(remat=remat, attention_chunk=chunk), tokens)


def test_packed_rows_equal_separate_rows(theirs: transformers.Gemma2ForCausalLM) -> None:
    parity.check_packed_rows(theirs, TINY)


def test_greedy_generation_with_cache(theirs: transformers.Gemma2ForCausalLM) -> None:
    """Prompts shorter and longer than the window."""
    parity.check_greedy_generation(theirs, TINY, lengths=(2, 8, 9, 20, 31))


@pytest.mark.parametrize(("param_dtype", "bound"), [("float32", 1.0), ("bfloat16", 1.1)])
def test_bfloat16_drifts_no_further_than_theirs(
    theirs: transformers.Gemma2ForCausalLM, param_dtype: str, bound: float
) -> None:
    tokens = parity.random_tokens(TINY, (8, T), seed=2)
    ours, hf = parity.bfloat16_errors(theirs, change(param_dtype=param_dtype), tokens)
    assert 1e-3 < ours < bound * hf


def change(**values: Any) -> Gemma2Config:
    return dataclasses.replace(TINY, **values)


# ------------------------------------------------------------------------------------------------- mutations


def layers(model: Gemma2) -> tuple[gemma2.Gemma2Layer, gemma2.Gemma2Layer]:
    return model.blocks.local_layer, model.blocks.global_layer


def swap_windows(model: Gemma2) -> None:
    first, second = layers(model)
    first.window, second.window = second.window, first.window


def kv_head_by_remainder(model: Gemma2) -> None:
    """Query head h reads kv head h % K: the same as reordering the query heads of the weights."""
    order = np.array([0, 2, 1, 3])
    for layer in layers(model):
        layer.attention.q.kernel[...] = layer.attention.q.kernel[...][:, :, order]
        layer.attention.o.kernel[...] = layer.attention.o.kernel[...][:, order]


def interleaved_rope(model: Gemma2) -> None:
    """Dimension 2i paired with 2i + 1: the same as reordering the head dimensions of queries and keys."""
    order = np.arange(TINY.head_dim).reshape(-1, 2).T.reshape(-1)
    for layer in layers(model):
        layer.attention.q.kernel[...] = layer.attention.q.kernel[...][..., order]
        layer.attention.k.kernel[...] = layer.attention.k.kernel[...][..., order]


def forget(name: str) -> Callable[[Gemma2], None]:
    def mutate(model: Gemma2) -> None:
        for layer in layers(model):
            setattr(layer, name, Identity())

    return mutate


def plain_weight(name: str) -> Callable[[Gemma2], None]:
    """Norm weight ``scale`` instead of ``1 + scale``."""

    def mutate(model: Gemma2) -> None:
        for layer in layers(model):
            scale = getattr(layer, name).scale
            scale[...] = scale[...] - 1.0

    return mutate


def forget_final_norm(model: Gemma2) -> None:
    model.final_norm = Identity()  # type: ignore[assignment]


def no_embedding_scale(model: Gemma2) -> None:
    # The table is tied, so the scale is undone where it is applied.
    model.__class__ = type("Unscaled", (Gemma2,), {"embed": lambda self, t: self.embedding[...][t]})


CONFIG_MUTATIONS = {
    "no final cap": change(final_softcap=None),
    "final cap": change(final_softcap=2.1),
    "no attention cap": change(attn_softcap=None),
    "attention cap": change(attn_softcap=1.8),
    "no window": change(sliding_window=T),
    "window - 1": change(sliding_window=7),
    "window + 1": change(sliding_window=9),
    "query scale of head_dim": change(query_pre_attn_scalar=8.0),
    "query scale of D / H": change(query_pre_attn_scalar=6.0),
    "rope theta": change(rope_theta=10_000.0),
    "norm epsilon": change(norm_eps=1e-6),
}

MODEL_MUTATIONS: dict[str, Callable[[Gemma2], None]] = {
    "global layer first": swap_windows,
    "kv head by remainder": kv_head_by_remainder,
    "interleaved rope": interleaved_rope,
    "no embedding scale": no_embedding_scale,
    "no final norm": forget_final_norm,
    **{f"no {n}": forget(n) for n in ("pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm")},
    **{f"plain weight in {n}": plain_weight(n) for n in ("post_attention_norm", "post_ffw_norm")},
}


@pytest.mark.parametrize("name", CONFIG_MUTATIONS)
def test_parity_sees_configuration(
    theirs: transformers.Gemma2ForCausalLM, tokens: NDArray, expected: NDArray, name: str
) -> None:
    wrong = logits_of(our_model(theirs, CONFIG_MUTATIONS[name]), tokens)
    assert np.abs(wrong - expected).max() > VISIBLE


@pytest.mark.parametrize("name", MODEL_MUTATIONS)
def test_parity_sees_structure(
    theirs: transformers.Gemma2ForCausalLM, tokens: NDArray, expected: NDArray, name: str
) -> None:
    model = our_model(theirs, TINY)
    MODEL_MUTATIONS[name](model)
    assert np.abs(logits_of(model, tokens) - expected).max() > VISIBLE


def test_parity_sees_activation(
    theirs: transformers.Gemma2ForCausalLM, tokens: NDArray, expected: NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact GELU is close to the tanh form; the tolerance is still far below the difference."""
    gelu = jax.nn.gelu
    monkeypatch.setattr(gemma2.jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=False))
    wrong = logits_of(our_model(theirs, TINY), tokens)
    assert np.abs(wrong - expected).max() > 5 * TOLERANCE


# ----------------------------------------------------------------------------------------------- our own parts


def test_dropout_is_keyed_and_off_by_default() -> None:
    model = Gemma2(dataclasses.replace(TINY, dropout=0.5), rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    hidden = jax.jit(lambda p, t, key: nnx.merge(graphdef, p).hidden(t, dropout_key=key))
    tokens = jnp.arange(12)[None]
    a, again, b = (np.asarray(hidden(params, tokens, jax.random.key(s))) for s in (0, 0, 1))
    off = np.asarray(hidden(params, tokens, None))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > VISIBLE
    assert np.abs(a - off).max() > VISIBLE
    plain = Gemma2(TINY, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(off, plain.hidden(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_layers": 3}, "num_layers must be even"),
        ({"num_kv_heads": 3}, "multiple of num_kv_heads=3"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"remat": "everything"}, "'everything' is not one of none, full, .*, dots"),
    ],
)
def test_bad_architectures(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **wrong)
