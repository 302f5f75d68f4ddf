"""Comparisons of one of our models with Hugging Face's, the same for every architecture."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.generation import Sampler, Sampling
from c2s_jax.models import Decoder, ModelConfig
from c2s_jax.ops import token_logprobs
from c2s_jax.parallel import make_mesh
from tests.models.hf_weights import from_hf, our_model, parameters

TOLERANCE = 1e-4  # of raw logits, absolute
VISIBLE = 1e-2  # what a wrong model must at least differ by


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Tiny products are far slower on many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Identity(nnx.Module):
    """A layer that was forgotten."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def random_tokens(config: ModelConfig, shape: tuple[int, ...], seed: int) -> NDArray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape, np.int32)


def hf_logits(theirs: Any, tokens: NDArray) -> NDArray:
    with torch.no_grad():
        return theirs(torch.from_numpy(tokens).long()).logits.float().numpy()


def logits_of(model: Decoder, *inputs: NDArray) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p, *x: nnx.merge(graphdef, p)(*x))(params, *inputs))


def hidden_of(model: Decoder, tokens: NDArray) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p, t: nnx.merge(graphdef, p).hidden(t))(params, tokens))


def check_logits(theirs: Any, config: ModelConfig, tokens: NDArray) -> None:
    """The same raw logits in float32."""
    expected = hf_logits(theirs, tokens)
    assert expected.std() > 0.5  # or nothing would be compared
    logits = logits_of(our_model(theirs, config), tokens)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


def check_hidden_states(theirs: Any, config: ModelConfig, tokens: NDArray) -> None:
    """The same hidden states after the last norm."""
    with torch.no_grad():
        hidden = theirs.base_model(torch.from_numpy(tokens).long()).last_hidden_state.numpy()
    ours = hidden_of(our_model(theirs, config), tokens)
    np.testing.assert_allclose(ours, hidden, rtol=0, atol=TOLERANCE * np.abs(hidden).max())


def check_loss_and_gradients(theirs: Any, config: ModelConfig, tokens: NDArray) -> None:
    """Loss and the gradient of every parameter, through the chunked log-probabilities."""
    theirs.zero_grad()
    ids = torch.from_numpy(tokens).long()
    loss = theirs(ids, labels=ids).loss
    loss.backward()
    gradients = from_hf({k: p.grad.numpy() for k, p in theirs.named_parameters() if p.grad is not None}, config)
    graphdef, params = nnx.split(our_model(theirs, config))

    def our_loss(p: nnx.State) -> jax.Array:
        model = nnx.merge(graphdef, p)
        hidden = model.hidden(tokens[:, :-1])
        table = model.output_table
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


def check_packed_rows(theirs: Any, config: ModelConfig) -> None:
    """Three examples and padding in one row give what each gives alone in the other implementation."""
    lengths, padding = (21, 3, 30), 10
    parts = [random_tokens(config, (n,), seed) for seed, n in enumerate(lengths)]
    packed = np.concatenate([*parts, np.zeros(padding, np.int32)])[None]
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in (*lengths, padding)])[None]
    segments = np.repeat(np.array([1, 2, 3, 0], np.int32), (*lengths, padding))[None]
    wanted = np.concatenate([hf_logits(theirs, part[None])[0] for part in parts])
    for chunk in (512, 16):
        model = our_model(theirs, dataclasses.replace(config, attention_chunk=chunk))
        found = logits_of(model, packed, positions, segments)[0, : sum(lengths)]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)
    # Each of the two arrays matters: positions that run on, examples that see each other.
    run_on = np.arange(packed.shape[1], dtype=np.int32)[None]
    for wrong in ((packed, run_on, np.ones_like(segments)), (packed, positions, np.ones_like(segments))):
        assert np.abs(logits_of(model, *wrong)[0, : sum(lengths)] - wanted).max() > VISIBLE


def check_greedy_generation(theirs: Any, config: ModelConfig, lengths: Sequence[int], new_tokens: int = 24) -> None:
    """Prompts of these lengths, decoded in one batch with a cache, as Hugging Face decodes each alone."""
    prompts = [random_tokens(config, (n,), seed) for seed, n in enumerate(lengths)]
    graphdef, params = nnx.split(our_model(theirs, config))
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    sampler = Sampler(graphdef, stop_ids=(), batch_size=len(prompts), mesh=mesh)
    samples = sampler(params, prompts, max_new_tokens=new_tokens, sampling=Sampling(temperature=0))
    for prompt, found in zip(prompts, samples.tokens):
        ids = torch.from_numpy(prompt).long()[None]
        wanted = theirs.generate(ids, do_sample=False, max_new_tokens=new_tokens, attention_mask=torch.ones_like(ids))
        np.testing.assert_array_equal(found, wanted[0, len(prompt) :].numpy())


def bfloat16_errors(theirs: Any, config: ModelConfig, tokens: NDArray) -> tuple[float, float]:
    """Mean absolute error of bfloat16 logits, ours and Hugging Face's own, against float32."""
    exact = hf_logits(theirs, tokens)
    half = copy.deepcopy(theirs)
    for p in half.parameters():  # not ``half.to``, which would round the rotary frequencies, too
        p.data = p.data.bfloat16()
    ours = logits_of(our_model(theirs, dataclasses.replace(config, dtype="bfloat16")), tokens)
    assert ours.dtype == np.float32
    return np.abs(ours - exact).mean(), np.abs(hf_logits(half, tokens) - exact).mean()
