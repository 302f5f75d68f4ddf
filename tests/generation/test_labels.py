"""Scores of candidate answers against full forward passes, SciPy and arithmetic by hand."""

import jax
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from c2s_jax.generation import LabelScorer, LabelScores
from c2s_jax.parallel import make_mesh, parameter_shardings
from tests.generation.tiny import Teacher, TinyModel, one_device

# A single token, a prefix of another, one longer than the window, and two that differ at their end only.
LABELS = [[5], [7, 9, 1], [7, 9, 11, 1], list(range(20, 31)), [40, 41, 42, 1], [40, 41, 42, 2]]


@pytest.fixture(scope="module")
def wanted(prompts: list[NDArray], teacher: Teacher) -> NDArray:
    """Log-probabilities [N, L] by full forward passes."""
    out = np.zeros((len(prompts), len(LABELS)))
    for i, prompt in enumerate(prompts):
        for j, label in enumerate(LABELS):
            logits = teacher(np.array([*prompt, *label]))[len(prompt) - 1 : -1]
            out[i, j] = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(label)), label].sum()
    return out


def test_scores_equal_full_passes(model: TinyModel, prompts: list[NDArray], wanted: NDArray) -> None:
    """In batches of two prompts and two labels, with rows that only fill up; one program for all."""
    scorer, done = LabelScorer(model[0], batch_size=2, rows=4, mesh=one_device()), []
    found = scorer(model[1], prompts, LABELS, progress=done.append)
    np.testing.assert_allclose(found.logprobs, wanted, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.lengths, [1, 3, 4, 11, 4, 4])
    assert done == [2, 2, 1]
    assert scorer.compiled == 1


def test_rows_that_pad_the_table(model: TinyModel, prompts: list[NDArray], teacher: Teacher) -> None:
    """Of 64 rows 50 are tokens: the others take no share of the probability."""
    found = LabelScorer(model[0], vocab_size=50, batch_size=2, rows=4, mesh=one_device())(model[1], prompts, LABELS)
    for i, prompt in enumerate(prompts):
        for j, label in enumerate(LABELS):
            logits = teacher(np.array([*prompt, *label]))[len(prompt) - 1 : -1, :50]
            wanted = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(label)), label].sum()
            np.testing.assert_allclose(found.logprobs[i, j], wanted, rtol=0, atol=1e-4)


def test_spread_over_devices(model: TinyModel, prompts: list[NDArray], wanted: NDArray) -> None:
    mesh = make_mesh({"fsdp": 4, "tensor": 2}, jax.devices()[:8])
    params = jax.device_put(model[1], parameter_shardings(model[1], mesh))
    found = LabelScorer(model[0], batch_size=4, mesh=mesh)(params, prompts, LABELS)
    np.testing.assert_allclose(found.logprobs, wanted, rtol=0, atol=1e-4)


def test_posteriors() -> None:
    """Two labels of probabilities 0.2 and 0.1, of 2 and 1 tokens; the empty prompt gives 0.6 and 0.2."""
    scores = LabelScores(np.log([[0.2, 0.1], [0.3, 0.3]]), np.array([2, 1]))
    np.testing.assert_allclose(scores.posterior(), [[2 / 3, 1 / 3], [0.5, 0.5]])
    np.testing.assert_allclose(scores.posterior(per_token=True)[0], np.array([0.2**0.5, 0.1]) / (0.2**0.5 + 0.1))
    empty = LabelScores(np.log([[0.6, 0.2]]), scores.lengths)
    np.testing.assert_allclose(np.exp(empty.prior()), [0.75, 0.25])
    np.testing.assert_allclose(scores.posterior(prior=empty.prior())[1], [0.25, 0.75])
    # Over several prompts: the mean of the posteriors, not of their logarithms.
    np.testing.assert_allclose(np.exp(scores.prior()), [(2 / 3 + 0.5) / 2, (1 / 3 + 0.5) / 2])


def test_bad_labels(model: TinyModel, prompts: list[NDArray]) -> None:
    scorer = LabelScorer(model[0], mesh=one_device())
    for labels in ([], [[1], []]):
        with pytest.raises(ValueError, match="each with at least one token"):
            scorer(model[1], prompts, labels)
