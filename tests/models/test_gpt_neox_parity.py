"""Our GPT-NeoX against Hugging Face's, and the proof that the comparison sees every feature."""

import dataclasses
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import transformers
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models import GPTNeoX, GPTNeoXConfig, make_model, num_parameters
from c2s_jax.models.gpt_neox import RELEASED
from tests.models import parity
from tests.models.hf_weights import TINY_GPT_NEOX as TINY
from tests.models.hf_weights import hf_model, our_model
from tests.models.parity import TOLERANCE, VISIBLE, Identity, logits_of

T = 64


@pytest.fixture(scope="module")
def theirs() -> Iterator[transformers.GPTNeoXForCausalLM]:
    with parity.one_torch_thread():
        yield hf_model(TINY)


@pytest.fixture(scope="module")
def tokens() -> NDArray:
    return parity.random_tokens(TINY, (2, T), seed=1)


@pytest.fixture(scope="module")
def expected(theirs: transformers.GPTNeoXForCausalLM, tokens: NDArray) -> NDArray:
    return parity.hf_logits(theirs, tokens)


def change(**values: Any) -> GPTNeoXConfig:
    return dataclasses.replace(TINY, **values)


VARIANTS = {
    "as Pythia": change(rotary_fraction=0.25, rope_theta=10_000.0, norm_eps=1e-5, embed_dim=48),
    "all dimensions rotated": change(rotary_fraction=1.0),
    "sequential residual": change(parallel_residual=False),
    "tanh": change(activation="gelu_tanh"),
    "scaled positions": change(rope_scale=4.0),
    "everything": change(rotary_fraction=1 / 3, parallel_residual=False, activation="gelu_tanh", rope_scale=2.5),
}


@pytest.mark.parametrize("chunk", [512, 16])
def test_logits(theirs: transformers.GPTNeoXForCausalLM, tokens: NDArray, chunk: int) -> None:
    """With attention in one piece and in chunks of queries."""
    parity.check_logits(theirs, change(attention_chunk=chunk), tokens)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_of_variants(tokens: NDArray, name: str) -> None:
    parity.check_logits(hf_model(VARIANTS[name]), VARIANTS[name], tokens)


def test_hidden_states(theirs: transformers.GPTNeoXForCausalLM, tokens: NDArray) -> None:
    parity.check_hidden_states(theirs, TINY, tokens)


@pytest.mark.parametrize(("remat", "chunk"), [("none", 512), ("full", 16), ("dots", 16)])
def test_loss_and_gradients(theirs: transformers.GPTNeoXForCausalLM, tokens: NDArray, remat: str, chunk: int) -> None:
    parity.check_loss_and_gradients(theirs, change(remat=remat, attention_chunk=chunk), tokens)


def test_loss_and_gradients_of_a_variant(tokens: NDArray) -> None:
    config = VARIANTS["everything"]
    parity.check_loss_and_gradients(hf_model(config), config, tokens)


def test_packed_rows_equal_separate_rows(theirs: transformers.GPTNeoXForCausalLM) -> None:
    parity.check_packed_rows(theirs, TINY)


def test_greedy_generation_with_cache(theirs: transformers.GPTNeoXForCausalLM) -> None:
    parity.check_greedy_generation(theirs, TINY, lengths=(1, 8, 9, 20, 31))


@pytest.mark.parametrize(("param_dtype", "bound"), [("float32", 1.0), ("bfloat16", 1.1)])
def test_bfloat16_drifts_no_further_than_theirs(
    theirs: transformers.GPTNeoXForCausalLM, param_dtype: str, bound: float
) -> None:
    tokens = parity.random_tokens(TINY, (8, T), seed=2)
    ours, hf = parity.bfloat16_errors(theirs, change(param_dtype=param_dtype), tokens)
    assert 1e-3 < ours < bound * hf


# ------------------------------------------------------------------------------------------------- mutations


def reorder_queries_and_keys(order: NDArray) -> Callable[[GPTNeoX], None]:
    """Other head dimensions rotated, or in other pairs: the same as reordering those of queries and keys."""

    def mutate(model: GPTNeoX) -> None:
        for p in (model.blocks.attention.qkv.kernel, model.blocks.attention.qkv.bias):
            p[...] = p[...].at[..., :2, :].set(p[...][..., :2, :][..., order])

    return mutate


def reorder_projections(*order: int) -> Callable[[GPTNeoX], None]:
    def mutate(model: GPTNeoX) -> None:
        for p in (model.blocks.attention.qkv.kernel, model.blocks.attention.qkv.bias):
            p[...] = p[...][..., np.array(order), :]

    return mutate


def projections_before_heads(model: GPTNeoX) -> None:
    """Rows of the released matrix read as (3, H, E) instead of (H, 3, E)."""
    for p in (model.blocks.attention.qkv.kernel, model.blocks.attention.qkv.bias):
        *lead, H, three, E = p[...].shape
        p[...] = p[...].reshape(*lead, three, H, E).swapaxes(-2, -3)


def no_bias_of_projection(i: int) -> Callable[[GPTNeoX], None]:
    def mutate(model: GPTNeoX) -> None:
        bias = model.blocks.attention.qkv.bias
        bias[...] = bias[...].at[..., i, :].set(0.0)

    return mutate


def zero(name: str) -> Callable[[GPTNeoX], None]:
    def mutate(model: GPTNeoX) -> None:
        parameter = attrgetter(name)(model)
        parameter[...] = 0 * parameter[...]

    return mutate


def forget(name: str) -> Callable[[GPTNeoX], None]:
    owner, _, attribute = name.rpartition(".")

    def mutate(model: GPTNeoX) -> None:
        setattr(attrgetter(owner)(model) if owner else model, attribute, Identity())

    return mutate


def tie(model: GPTNeoX) -> None:
    model.unembedding[...] = model.embedding[...]


def scale_scores_by(scale: float) -> Callable[[GPTNeoX], None]:
    def mutate(model: GPTNeoX) -> None:
        model.blocks.scale = scale

    return mutate


E, R = TINY.head_dim, TINY.rotary_dim
CONFIG_MUTATIONS = {
    "rotary fraction": change(rotary_fraction=1 / 3),
    "all dimensions rotated": change(rotary_fraction=1.0),
    "rope theta": change(rope_theta=10_000.0),
    "rope scale": change(rope_scale=1.1),
    "sequential residual": change(parallel_residual=False),
    "norm epsilon": change(norm_eps=1e-5),
}
BIASES = (
    *(f"blocks.{n}.bias" for n in ("attention_norm", "attention.qkv", "attention.o")),
    *(f"blocks.{n}.bias" for n in ("ffw_norm", "ffw.up", "ffw.down")),
    "final_norm.bias",
)
MODEL_MUTATIONS: dict[str, Callable[[GPTNeoX], None]] = {
    "last dimensions rotated": reorder_queries_and_keys(np.roll(np.arange(E), R)),
    "interleaved rope": reorder_queries_and_keys(np.r_[np.arange(R).reshape(-1, 2).T.reshape(-1), R:E]),
    "keys before queries": reorder_projections(1, 0, 2),
    "values before keys": reorder_projections(0, 2, 1),
    "projections before heads": projections_before_heads,
    "scores not scaled": scale_scores_by(1.0),
    "scores scaled by model size": scale_scores_by(TINY.embed_dim**-0.5),
    "tied embeddings": tie,
    **{f"no {n}": forget(n) for n in ("blocks.attention_norm", "blocks.ffw_norm", "final_norm")},
    **{f"no {n}": zero(n) for n in BIASES},
    **{f"no bias of {n}": no_bias_of_projection(i) for i, n in enumerate(("queries", "keys", "values"))},
}


@pytest.mark.parametrize("name", CONFIG_MUTATIONS)
def test_parity_sees_configuration(
    theirs: transformers.GPTNeoXForCausalLM, tokens: NDArray, expected: NDArray, name: str
) -> None:
    wrong = logits_of(our_model(theirs, CONFIG_MUTATIONS[name]), tokens)
    assert np.abs(wrong - expected).max() > VISIBLE


@pytest.mark.parametrize("name", MODEL_MUTATIONS)
def test_parity_sees_structure(
    theirs: transformers.GPTNeoXForCausalLM, tokens: NDArray, expected: NDArray, name: str
) -> None:
    model = our_model(theirs, TINY)
    MODEL_MUTATIONS[name](model)
    assert np.abs(logits_of(model, tokens) - expected).max() > VISIBLE


def test_parity_sees_activation(theirs: transformers.GPTNeoXForCausalLM, tokens: NDArray, expected: NDArray) -> None:
    """The two forms of GELU are close; the tolerance is still far below the difference."""
    wrong = logits_of(our_model(theirs, change(activation="gelu_tanh")), tokens)
    assert np.abs(wrong - expected).max() > 5 * TOLERANCE


# ----------------------------------------------------------------------------------------------- our own parts


@pytest.mark.parametrize(
    ("size", "parameters", "heads"),
    [("160m", 162_322_944, 12), ("410m", 405_334_016, 16), ("1b", 1_011_781_632, 8)],
)
def test_released_sizes(size: str, parameters: int, heads: int) -> None:
    """Pythia's numbers of parameters as published, and of heads, which they do not show."""
    config = GPTNeoXConfig(**RELEASED[size])
    assert num_parameters(nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0)))) == parameters
    assert config.num_heads == heads


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_heads": 5}, "embed_dim=36 must be a multiple of num_heads=5"),
        ({"rotary_fraction": 0.25}, "must rotate an even number of the 12 dimensions .* it is 3"),
        ({"rotary_fraction": 1.5}, "rotary_fraction=1.5 must rotate"),
        ({"rotary_fraction": 0.0}, "rotary_fraction=0.0 must rotate"),
        ({"activation": "relu"}, "'relu' is not one of gelu, gelu_tanh"),
        ({"remat": "everything"}, "'everything' is not one of none, full, .*, dots"),
    ],
)
def test_bad_architectures(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(**wrong)
