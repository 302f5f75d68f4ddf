"""Completions in rows: all are there, once, and none sees another."""

import jax
import numpy as np
import pytest
from flax import nnx

from c2s_jax.models import make_model
from c2s_jax.rl import GRPOOptions, rollout
from c2s_jax.rl.loss import token_weights
from c2s_jax.rl.packing import pack
from c2s_jax.rl.step import completion_logprobs
from tests.toy import MODEL


def completions(n: int, group: int, limit: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(1, MODEL.vocab_size, size, np.int32) for size in rng.integers(2, 30, n // group)]
    lengths = rng.integers(1, limit + 1, n)
    tokens = rng.integers(1, MODEL.vocab_size, (n, limit), np.int32)
    logprobs = rng.normal(size=(n, limit)).astype(np.float32)
    return rollout.arrays(prompts, tokens, lengths, logprobs, group, pad_id=0), lengths


@pytest.mark.parametrize(("parts", "multiple"), [(1, 1), (3, 2), (2, 8)])
def test_every_token_has_its_place(parts, multiple) -> None:
    arrays, lengths = completions(24, 4, 50)
    packing = pack(arrays, parts=parts, multiple=multiple)
    batches = packing.batches(arrays)
    numbers = packing.lay(number=np.arange(1, 25, dtype=np.float32))
    assert len(batches) == parts
    assert packing.rows % multiple == 0
    assert packing.time % 64 == 0
    seen = []
    for part, (batch, number) in enumerate(zip(batches, numbers)):
        assert batch["tokens"].shape == (packing.rows, packing.time)
        assert batch["at"].shape == (packing.rows, packing.most)
        for row in range(packing.rows):
            for owner in np.unique(batch["segment_ids"][row]).tolist():
                if owner == 0:
                    continue
                here = batch["segment_ids"][row] == owner
                own = (batch["owner"][row] == owner - 1) & (batch["mask"][row] > 0)
                (i,) = set((number["number"][row][own] - 1).astype(int).tolist())
                seen.append(i)
                assert i // (24 // parts) == part
                length = arrays["prompt_lengths"][i] + lengths[i]
                np.testing.assert_array_equal(batch["tokens"][row][here], arrays["tokens"][i, :length])
                np.testing.assert_array_equal(batch["positions"][row][here], np.arange(length))
                np.testing.assert_array_equal(batch["completions"][row][own], arrays["completions"][i, : lengths[i]])
                np.testing.assert_array_equal(batch["sampled"][row][own], arrays["sampled"][i, : lengths[i]])
                following = batch["tokens"][row][batch["at"][row][own] + 1]
                np.testing.assert_array_equal(following, batch["completions"][row][own])
    assert sorted(seen) == list(range(24))
    assert sum(batch["mask"].sum() for batch in batches) == lengths.sum()


def test_log_probabilities_are_those_of_each_alone() -> None:
    model = make_model(MODEL, nnx.Rngs(0))
    options = GRPOOptions(temperature=0.7)
    arrays, lengths = completions(12, 4, 20)
    packing = pack(arrays)
    batch = packing.batches(arrays)[0]
    assert packing.rows < 12
    found = np.asarray(jax.jit(lambda b: completion_logprobs(model, b, options, MODEL.vocab_size)[0])(batch))
    number = packing.lay(number=np.arange(1, 13, dtype=np.float32))[0]["number"]
    for i in range(12):
        alone = {name: x[i : i + 1] for name, x in arrays.items()}
        own = pack(alone).batches(alone)[0]
        logprobs = completion_logprobs(model, own, options, MODEL.vocab_size)[0]
        expected = np.asarray(logprobs)[0, : lengths[i]]
        np.testing.assert_allclose(found[number == i + 1], expected, rtol=1e-4, atol=1e-4)


def test_parts_are_those_that_weights_are_made_for() -> None:
    arrays, _ = completions(16, 4, 8)
    options = GRPOOptions(prompts=4, num_generations=4, minibatches=4, max_completion_length=8, loss_type="bnpo")
    weights = token_weights(arrays["mask"], np.ones(16, bool), options)
    for part in pack(arrays, parts=4).lay(weights=weights):
        np.testing.assert_allclose(part["weights"].sum(), 1.0, rtol=1e-6)  # a mean over the tokens of the step
