"""On-device sampling against full forward passes and a plain numpy account of the distributions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from c2s_jax.generation import Sampler, Sampling
from c2s_jax.generation.sampling import draw, log_distribution
from c2s_jax.parallel import make_mesh, parameter_shardings
from tests.generation.tiny import Teacher, TinyModel, distribution, one_device

NEW = 12  # tokens generated: beyond the window


def make_sampler(model: TinyModel, batch_size: int = 5, stop_ids: Sequence[int] = ()) -> Sampler:
    return Sampler(model[0], stop_ids=stop_ids, batch_size=batch_size, mesh=one_device())


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(top_k=5),
        Sampling(top_p=0.6),
        Sampling(min_p=0.2),
        Sampling(temperature=0.7, top_k=9, top_p=0.8, min_p=0.1),
        Sampling(temperature=0),
    ],
    ids=str,
)
def test_logprobs_are_those_of_the_distribution_sampled_from(
    model: TinyModel, prompts: list[NDArray], teacher: Teacher, sampling: Sampling
) -> None:
    samples = make_sampler(model)(model[1], prompts, max_new_tokens=NEW, sampling=sampling, seed=1)
    differ_from_plain = 0.0
    for prompt, tokens, logprobs in zip(prompts, samples.tokens, samples.logprobs):
        logits = teacher(np.concatenate([prompt, tokens]))[len(prompt) - 1 : -1]
        wanted = [distribution(row, sampling)[token] for row, token in zip(logits, tokens)]
        np.testing.assert_allclose(logprobs, wanted, rtol=0, atol=1e-4)
        plain = [distribution(row, Sampling())[token] for row, token in zip(logits, tokens)]
        differ_from_plain = max(differ_from_plain, np.abs(np.subtract(wanted, plain)).max())
        if sampling.temperature == 0:
            np.testing.assert_array_equal(tokens, logits.argmax(axis=1))
    # Otherwise the comparison could not tell the filtered distribution from the model's own.
    assert (differ_from_plain > 0.1) == (sampling not in (Sampling(), Sampling(temperature=0)))


def test_greedy_equals_argmax_of_full_passes(model: TinyModel, prompts: list[NDArray], teacher: Teacher) -> None:
    samples = make_sampler(model)(model[1], prompts, max_new_tokens=NEW, sampling=Sampling(temperature=0))
    for prompt, found in zip(prompts, samples.tokens):
        tokens = list(prompt)
        for _ in range(NEW):
            tokens.append(int(teacher(np.array(tokens))[-1].argmax()))
        np.testing.assert_array_equal(found, tokens[len(prompt) :])
    assert len({tuple(row) for row in samples.tokens}) == len(prompts)


def test_rows_do_not_depend_on_their_batch(model: TinyModel, prompts: list[NDArray]) -> None:
    """The same answers from batches of 5 and of 2, and beside a longer prompt of another bucket."""
    whole, pairs = make_sampler(model), make_sampler(model, batch_size=2)
    a = whole(model[1], prompts, max_new_tokens=NEW, seed=5)
    for other in (
        pairs(model[1], prompts, max_new_tokens=NEW, seed=5),
        whole(model[1], [*prompts[:4], np.arange(1, 41, dtype=np.int32)], max_new_tokens=NEW, seed=5),
        whole(model[1], prompts[:4], max_new_tokens=NEW, seed=5),
    ):
        np.testing.assert_array_equal(a.tokens[:4], other.tokens[:4])
        np.testing.assert_allclose(a.logprobs[:4], other.logprobs[:4], rtol=0, atol=1e-4)
    again = whole(model[1], prompts, max_new_tokens=NEW, seed=5)
    np.testing.assert_array_equal(a.tokens, again.tokens)
    assert (a.tokens != whole(model[1], prompts, max_new_tokens=NEW, seed=6).tokens).mean() > 0.5
    # Equal prompts are different rows, with randomness of their own.
    same = whole(model[1], [prompts[0]] * 5, max_new_tokens=NEW, seed=5).tokens
    assert len({tuple(row) for row in same}) == 5


def test_stop_tokens(model: TinyModel, prompts: list[NDArray]) -> None:
    """An answer ends with its first stop token; what follows is padding of probability 1."""
    greedy = Sampling(temperature=0)
    free = make_sampler(model)(model[1], prompts, max_new_tokens=NEW, sampling=greedy)
    stops = (int(free.tokens[0, 4]), int(free.tokens[1, 0]))
    found = make_sampler(model, stop_ids=stops)(model[1], prompts, max_new_tokens=NEW, sampling=greedy)
    hits = np.isin(free.tokens, stops)
    ends = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, NEW)
    assert ends[0] <= 5
    assert ends[1] == 1
    np.testing.assert_array_equal(found.lengths, ends)
    np.testing.assert_array_equal(found.stopped, hits.any(axis=1))
    for row, end in enumerate(ends):
        np.testing.assert_array_equal(found.tokens[row, :end], free.tokens[row, :end])
        np.testing.assert_allclose(found.logprobs[row, :end], free.logprobs[row, :end], atol=1e-5)
        assert not found.tokens[row, end:].any()
        assert not found.logprobs[row, end:].any()
    texts = found.texts(lambda ids: " ".join(map(str, ids)))
    assert texts[1] == ""
    assert texts[0].split() == [str(t) for t in free.tokens[0, : ends[0] - found.stopped[0]]]
    without_end = int(np.argmin(found.stopped))
    if not found.stopped[without_end]:
        assert len(texts[without_end].split()) == NEW


def test_one_program_a_bucket(model: TinyModel) -> None:
    """Any prompt length of a bucket, any number of prompts and any seed run the same compiled program."""
    sampler = make_sampler(model, batch_size=4)
    params = model[1]

    def prompts(*lengths: int) -> list[NDArray]:
        return [np.ones(n, np.int32) for n in lengths]

    assert sampler.compiled == 0
    for lengths, seed in (((1, 5, 32), 0), ((7,), 1), ((2, 3, 4, 5, 6, 7), 2), ((32,) * 4, 3)):
        sampler(params, prompts(*lengths), max_new_tokens=3, seed=seed)
        assert sampler.compiled == 1
    sampler(params, prompts(33, 2), max_new_tokens=3)
    assert sampler.compiled == 2
    sampler(params, prompts(64), max_new_tokens=3)
    assert sampler.compiled == 2
    sampler(params, prompts(5), max_new_tokens=3, sampling=Sampling(top_p=0.5))
    assert sampler.compiled == 3
    sampler(params, prompts(5), max_new_tokens=4)
    assert sampler.compiled == 4


def test_progress_counts_prompts(model: TinyModel, prompts: list[NDArray]) -> None:
    done: list[int] = []
    make_sampler(model, batch_size=2)(model[1], prompts, max_new_tokens=1, progress=done.append)
    assert done == [2, 2, 1]


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.7), Sampling(top_k=3), Sampling(top_p=0.5), Sampling(min_p=0.3)], ids=str
)
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    """Frequencies of 4,000 draws within five standard errors; tokens left out never come."""
    n, logits = 4000, np.random.default_rng(0).normal(size=12).astype(np.float32) * 2
    log_p = log_distribution(jnp.broadcast_to(jnp.asarray(logits), (n, 12)), sampling)
    tokens, logprobs = draw(log_p, jax.random.split(jax.random.key(0), n), sampling)
    p = np.exp(distribution(logits, sampling))
    frequency = np.bincount(tokens, minlength=12) / n
    assert (np.abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / n)).all()
    np.testing.assert_allclose(np.exp(logprobs), p[np.asarray(tokens)], rtol=1e-4)


def test_draws_from_a_large_vocabulary() -> None:
    """Many blocks of probabilities, most without weight: only tokens with weight come, as often as they should."""
    n, size = 4000, 1500
    weights = np.zeros(size)
    weights[[3, 511, 512, 1100, 1499]] = 0.1, 0.2, 0.4, 0.05, 0.25
    log_p = jnp.where(weights > 0, jnp.log(jnp.maximum(weights, 1e-9)), -1e30)
    tokens, _ = draw(jnp.broadcast_to(log_p, (n, size)), jax.random.split(jax.random.key(1), n), Sampling())
    frequency = np.bincount(tokens, minlength=size) / n
    assert (np.abs(frequency - weights) <= 5 * np.sqrt(weights * (1 - weights) / n)).all()


def test_nucleus_keeps_the_token_that_reaches_the_mass() -> None:
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    for top_p, kept in ((0.4, 1), (0.51, 2), (0.79, 2), (0.81, 3), (1.0, 4)):
        p = np.exp(log_distribution(logits, Sampling(top_p=top_p)))[0]
        assert (p > 0).sum() == kept, top_p


def test_bad_input(model: TinyModel) -> None:
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        make_sampler(model)(model[1], [np.ones(3, np.int32), np.ones(0, np.int32)], max_new_tokens=2)
    for wrong in ({"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": 2.0}):
        with pytest.raises(ValueError, match="need temperature >= 0"):
            Sampling(**wrong)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0)])
def test_rows_beyond_the_vocabulary_are_never_drawn(
    model: TinyModel, prompts: list[NDArray], teacher: Teacher, sampling: Sampling
) -> None:
    pieces = 9
    sampler = Sampler(model[0], stop_ids=(), vocab_size=pieces, batch_size=5, mesh=one_device())
    found = sampler(model[1], prompts, max_new_tokens=NEW, sampling=sampling)
    assert found.tokens.max() < pieces
    for prompt, tokens, logprobs in zip(prompts, found.tokens, found.logprobs):
        logits = teacher(np.concatenate([prompt, tokens]))[len(prompt) - 1 : -1, :pieces]
        expected = [distribution(row, Sampling())[token] for row, token in zip(logits, tokens)]
        np.testing.assert_allclose(logprobs, expected, rtol=0, atol=1e-4)


def test_spread_over_devices(model: TinyModel, prompts: list[NDArray]) -> None:
    """Rows and heads on eight devices give what one device gives; a device holds its own rows' cache only."""
    alone = make_sampler(model)(model[1], prompts, max_new_tokens=NEW, sampling=Sampling(temperature=0))
    mesh = make_mesh({"fsdp": 4, "tensor": 2}, jax.devices()[:8])
    params = jax.device_put(model[1], parameter_shardings(model[1], mesh))
    sampler = Sampler(model[0], stop_ids=(), batch_size=5, mesh=mesh)
    assert sampler.batch_size == 8
    found = sampler(params, prompts, max_new_tokens=NEW, sampling=Sampling(temperature=0))
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.logprobs, alone.logprobs, rtol=0, atol=1e-4)
