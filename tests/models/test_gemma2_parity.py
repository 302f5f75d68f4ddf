"""Our Gemma-2 against Hugging Face's, and the proof that the comparison sees every feature."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.generation import Sampler, Sampling
from c2s_jax.models import Gemma2, Gemma2Config, gemma2
from c2s_jax.ops import token_logprobs
from c2s_jax.parallel import make_mesh
from tests.models.hf_weights import TINY, from_hf, hf_model, our_model, parameters

B, T = 2, 64
TOLERANCE = 1e-4  # of raw logits, absolute
VISIBLE = 1e-2  # what a wrong model must at least differ by


@pytest.fixture(scope="module")
def theirs() -> Iterator[transformers.Gemma2ForCausalLM]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield hf_model(TINY)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokens() -> Any:
    return np.random.default_rng(1).integers(0, TINY.vocab_size, (B, T), np.int32)


@pytest.fixture(scope="module")
def expected(theirs: transformers.Gemma2ForCausalLM, tokens: Any) -> NDArray:
    return hf_logits(theirs, tokens)


def hf_logits(theirs: transformers.Gemma2ForCausalLM, tokens: Any) -> NDArray:
    with torch.no_grad():
        return theirs(torch.from_numpy(tokens).long()).logits.numpy()


def logits_of(model: Gemma2, *inputs: NDArray) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p, *x: nnx.merge(graphdef, p)(*x))(params, *inputs))


@pytest.mark.parametrize("chunk", [512, 16])
def test_logits(theirs: transformers.Gemma2ForCausalLM, tokens: Any, expected: NDArray, chunk: int) -> None:
    """The same raw logits, with attention in one piece and in chunks of queries."""
    assert expected.std() > 0.5  # or nothing would be compared
    model = our_model(theirs, dataclasses.replace(TINY, attention_chunk=chunk))
    logits = logits_of(model, tokens)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


def test_hidden_states(theirs: transformers.Gemma2ForCausalLM, tokens: Any) -> None:
    with torch.no_grad():
        hidden = theirs.model(torch.from_numpy(tokens).long()).last_hidden_state.numpy()
    graphdef, params = nnx.split(our_model(theirs, TINY))
    ours = jax.jit(lambda p, t: nnx.merge(graphdef, p).hidden(t))(params, tokens)
    np.testing.assert_allclose(ours, hidden, rtol=0, atol=TOLERANCE * np.abs(hidden).max())


@pytest.mark.parametrize(("remat", "chunk"), [("none", 512), ("full", 16), ("dots", 16)])
def test_loss_and_gradients(theirs: transformers.Gemma2ForCausalLM, tokens: Any, remat: str, chunk: int) -> None:
    """Loss and the gradient of every parameter, through the chunked log-probabilities and rematerialisation."""
    theirs.zero_grad()
    ids = torch.from_numpy(tokens).long()
    loss = theirs(ids, labels=ids).loss
    loss.backward()
    gradients = from_hf({k: p.grad.numpy() for k, p in theirs.named_parameters() if p.grad is not None}, TINY)
    config = dataclasses.replace(TINY, remat=remat, attention_chunk=chunk)
    graphdef, params = nnx.split(our_model(theirs, config))

    def our_loss(p: nnx.State) -> jax.Array:
        model = nnx.merge(graphdef, p)
        hidden = model.hidden(tokens[:, :-1])
        table = model.embedding[...]
        logprob, _ = token_logprobs(hidden, table, tokens[:, 1:], softcap=config.final_softcap, chunk=10)
        return -logprob.mean()

    ours, our_gradients = jax.jit(jax.value_and_grad(our_loss))(params)
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-5)
    found = parameters(our_gradients)
    assert found.keys() == gradients.keys()
    for name, wanted in gradients.items():
        scale = np.abs(wanted).max()
        assert scale > 1e-5, name
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=2e-4 * scale, err_msg=name)


def test_packed_rows_equal_separate_rows(theirs: transformers.Gemma2ForCausalLM) -> None:
    """Three examples and padding in one row give what each gives alone in the other implementation."""
    lengths = (21, 3, 30)
    rng = np.random.default_rng(2)
    parts = [rng.integers(0, TINY.vocab_size, n, np.int32) for n in lengths]
    padding = T - sum(lengths)
    packed = np.concatenate([*parts, np.zeros(padding, np.int32)])[None]
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in (*lengths, padding)])[None]
    segments = np.repeat(np.array([1, 2, 3, 0], np.int32), (*lengths, padding))[None]
    wanted = np.concatenate([hf_logits(theirs, part[None])[0] for part in parts])
    for chunk in (512, 16):
        model = our_model(theirs, dataclasses.replace(TINY, attention_chunk=chunk))
        found = logits_of(model, packed, positions, segments)[0, : sum(lengths)]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)
    # Each of the two arrays matters: positions that run on, examples that see each other.
    run_on = np.arange(T, dtype=np.int32)[None]
    for wrong in ((packed, run_on, np.ones_like(segments)), (packed, positions, np.ones_like(segments))):
        assert np.abs(logits_of(model, *wrong)[0, : sum(lengths)] - wanted).max() > VISIBLE


def test_greedy_generation_with_cache(theirs: transformers.Gemma2ForCausalLM) -> None:
    """Prompts shorter and longer than the window, decoded in one batch, as Hugging Face decodes each alone."""
    rng = np.random.default_rng(3)
    prompts = [rng.integers(3, TINY.vocab_size, n, np.int32) for n in (2, 8, 9, 20, 31)]
    graphdef, params = nnx.split(our_model(theirs, TINY))
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    sampler = Sampler(graphdef, stop_ids=(), batch_size=len(prompts), mesh=mesh)
    samples = sampler(params, prompts, max_new_tokens=24, sampling=Sampling(temperature=0))
    for prompt, found in zip(prompts, samples.tokens):
        ids = torch.from_numpy(prompt).long()[None]
        wanted = theirs.generate(  # type: ignore[misc]
            ids, do_sample=False, max_new_tokens=24, attention_mask=torch.ones_like(ids)
        )
        np.testing.assert_array_equal(found, wanted[0, len(prompt) :].numpy())


# ------------------------------------------------------------------------------------------------- mutations


class Identity(nnx.Module):
    """A layer that was forgotten."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def layers(model: Gemma2) -> tuple[gemma2.Layer, gemma2.Layer]:
    return model.pairs.local_layer, model.pairs.global_layer


def swap_windows(model: Gemma2) -> None:
    first, second = (layer.attention for layer in layers(model))
    first.window, second.window = second.window, first.window


def kv_head_by_remainder(model: Gemma2) -> None:
    """Query head h reads kv head h % K: the same as reordering the query heads of the weights."""
    order = np.array([0, 2, 1, 3])
    for layer in layers(model):
        layer.attention.q[...] = layer.attention.q[...][:, :, order]
        layer.attention.o[...] = layer.attention.o[...][:, order]


def interleaved_rope(model: Gemma2) -> None:
    """Dimension 2i paired with 2i + 1: the same as reordering the head dimensions of queries and keys."""
    order = np.arange(TINY.head_dim).reshape(-1, 2).T.reshape(-1)
    for layer in layers(model):
        layer.attention.q[...] = layer.attention.q[...][..., order]
        layer.attention.k[...] = layer.attention.k[...][..., order]


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
    model.__class__ = type("Unscaled", (Gemma2,), {"_embed": lambda self, t: self.embedding[...][t]})


def change(**values: float | None) -> Gemma2Config:
    return dataclasses.replace(TINY, **values)  # type: ignore[arg-type]


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
    theirs: transformers.Gemma2ForCausalLM, tokens: Any, expected: NDArray, name: str
) -> None:
    wrong = logits_of(our_model(theirs, CONFIG_MUTATIONS[name]), tokens)
    assert np.abs(wrong - expected).max() > VISIBLE


@pytest.mark.parametrize("name", MODEL_MUTATIONS)
def test_parity_sees_structure(
    theirs: transformers.Gemma2ForCausalLM, tokens: Any, expected: NDArray, name: str
) -> None:
    model = our_model(theirs, TINY)
    MODEL_MUTATIONS[name](model)
    assert np.abs(logits_of(model, tokens) - expected).max() > VISIBLE


def test_parity_sees_activation(
    theirs: transformers.Gemma2ForCausalLM, tokens: Any, expected: NDArray, monkeypatch: pytest.MonkeyPatch
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


def test_bfloat16_activations_stay_near_float32(theirs: transformers.Gemma2ForCausalLM, tokens: Any) -> None:
    model = our_model(theirs, dataclasses.replace(TINY, dtype="bfloat16"))
    logits = logits_of(model, tokens)
    assert logits.dtype == np.float32
    difference = np.abs(logits - hf_logits(theirs, tokens))
    assert 1e-4 < difference.mean() < 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_layers": 3}, "num_layers must be even"),
        ({"num_kv_heads": 3}, "multiple of num_kv_heads=3"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"remat": "everything"}, "'everything' is not one of none, full, dots"),
    ],
)
def test_bad_architectures(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **wrong)
