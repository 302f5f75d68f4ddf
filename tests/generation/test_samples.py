"""Several samples of each prompt over one prompt cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.generation import Sampler, Samples, Sampling
from c2s_jax.generation.decoding import Decoding, Settings, Vocabulary
from tests.generation.tiny import CONFIG, Teacher, TinyModel, distribution, one_device

NEW, SAMPLES = 12, 3


@pytest.fixture(scope="module")
def sampler(model: TinyModel) -> Sampler:
    return Sampler(model[0], stop_ids=(), batch_size=6, mesh=one_device())


def test_samples_of_a_prompt(model: TinyModel, prompts: list[NDArray], teacher: Teacher, sampler: Sampler) -> None:
    """Three samples a prompt: teacher forcing agrees, they differ, and the first is the one that comes alone."""
    many = sampler(model[1], prompts, max_new_tokens=NEW, seed=1, samples_per_prompt=SAMPLES)
    assert many.tokens.shape == (len(prompts) * SAMPLES, NEW)
    for row, (tokens, logprobs) in enumerate(zip(many.tokens, many.logprobs)):
        prompt = prompts[row // SAMPLES]
        logits = teacher(np.concatenate([prompt, tokens]))[len(prompt) - 1 : -1]
        wanted = [distribution(x, Sampling())[token] for x, token in zip(logits, tokens)]
        np.testing.assert_allclose(logprobs, wanted, rtol=0, atol=1e-4)
    assert len({tuple(row) for row in many.tokens}) == len(many.tokens)
    alone = sampler(model[1], prompts, max_new_tokens=NEW, seed=1)
    np.testing.assert_array_equal(many.tokens[::SAMPLES], alone.tokens)


def test_prompt_ids_stand_for_places(model: TinyModel, prompts: list[NDArray], sampler: Sampler) -> None:
    """A part of a list, with the ids of the whole, gets the answers of the whole."""
    whole = sampler(model[1], prompts, max_new_tokens=NEW, samples_per_prompt=SAMPLES)
    part = sampler(model[1], prompts[2:], max_new_tokens=NEW, samples_per_prompt=SAMPLES, prompt_ids=[2, 3, 4])
    np.testing.assert_array_equal(part.tokens, whole.tokens[2 * SAMPLES :])
    for wrong in ([1, 2], [0.5] * 3, [-1, 2, 3], [2**32, 1, 2]):
        with pytest.raises(ValueError, match="prompt_ids must be 3 whole numbers"):
            sampler(model[1], prompts[2:], max_new_tokens=NEW, prompt_ids=wrong)
    with pytest.raises(ValueError, match="samples_per_prompt >= 1"):
        sampler(model[1], prompts, max_new_tokens=NEW, samples_per_prompt=0)


def decoding_bytes(model: TinyModel, samples: int, prompt: int) -> int:
    """Memory of the compiled decoding loop: its state, and what it takes besides."""
    settings = Settings((), 0, NEW, Sampling(), samples)

    def decoding(params: nnx.State) -> Decoding:
        return Decoding(nnx.merge(model[0], params), Vocabulary(), settings)

    tokens, lengths = np.ones((1, prompt), np.int32), np.full(1, prompt, np.int32)
    arguments = (tokens, lengths, np.zeros(1, bool), np.zeros(1, np.uint32), np.uint32(0))
    state = jax.eval_shape(lambda params: decoding(params).begin(*map(jnp.asarray, arguments)), model[1])
    loop = jax.jit(lambda params, state: decoding(params).run(state)).lower(model[1], state).compile()
    memory = loop.memory_analysis()
    return int(memory.argument_size_in_bytes + memory.temp_size_in_bytes)


def test_prompt_is_stored_once(model: TinyModel) -> None:
    """In compiled memory, each sample more costs its own tokens and scores, not a copy of the prompt's keys."""
    prompt, more = 8192, 15
    keys_and_values = 2 * CONFIG.num_kv_heads * CONFIG.head_dim * 4
    copy = prompt * keys_and_values * CONFIG.num_layers // 2  # in global layers; local ones keep a window
    one, many = (decoding_bytes(model, n, prompt) for n in (1, 1 + more))
    assert one > copy
    scores = 4 * prompt * CONFIG.num_heads  # of one layer at a time, in float32
    assert (many - one) / more < 3 * scores < copy


def test_stop_strings_cut_the_text() -> None:
    """The earliest of the strings, wherever it begins and ends within tokens; the stop token is left out as ever."""
    tokens = np.array([[0, 1, 2, 3], [0, 1, 4, 0], [1, 1, 1, 1]], np.int32)
    samples = Samples(tokens, np.zeros((3, 4)), np.array([4, 3, 4]), np.array([False, True, False]), np.zeros(3))
    pieces = ["ab", "cX", "Yd", "Y", "<end>"]
    texts = samples.texts(lambda ids: "".join(pieces[i] for i in ids), stop_strings=("dY", "XY"))
    assert texts == ["abc", "abcX", "cXcXcXcX"]
