"""Held-out losses by task, against logits summed up by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from c2s_jax.data import Corpus, MixtureTask, PromptStream
from c2s_jax.data.contexts import MissingData
from c2s_jax.evaluation.scaling import task_losses

TASKS = [MixtureTask("cell_type_annotation", max_genes=12), MixtureTask("cell_sentence_modelling", max_genes=9)]
SETTINGS = dict(samples=64, seq_len=96, batch_size=4, seed=3)


def by_hand(context, task: MixtureTask) -> dict[str, tuple[float, int]]:
    """Loss and tokens of the response and of the whole, one sample after the other, in float64.

    The model is causal: what is behind a sample's end does not matter. The first block of a stream of prompts is the
    task's first 64 examples.
    """
    stream = PromptStream(context.corpus, "test", [task], context.formatter, seq_len=96, seed=3)
    found, model = {"response": [], "sequence": []}, nnx.merge(context.graphdef, context.params)
    forward = jax.jit(lambda tokens: model(tokens))
    prompts = stream.take(0, 64)
    for prompt, reference in zip(prompts.tokens, prompts.references):
        row = np.concatenate([prompt, reference, [context.formatter.tokenizer.eos_id]]).astype(np.int32)
        logits = np.asarray(forward(np.pad(row, (0, 96 - len(row)))[None]), np.float64)[0, : len(row)]
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss = -logprobs[np.arange(len(row) - 1), row[1:]]
        found["sequence"].append(loss)
        found["response"].append(loss[len(prompt) - 1 :])
    whole = {name: np.concatenate(values) for name, values in found.items()}
    return {name: (values.mean(), len(values)) for name, values in whole.items()}


def test_losses_by_hand(context):
    found = task_losses(context, "test", TASKS, **SETTINGS)
    assert list(found) == [t.task for t in TASKS]
    for task in TASKS:
        expected, loss = by_hand(context, task), found[task.task]
        assert loss.n == 64
        for name in ("response", "sequence"):
            side = getattr(loss, name)
            assert side.nll == pytest.approx(expected[name][0], rel=2e-5)
            assert side.tokens == expected[name][1]
            assert side.low < side.nll < side.high
        assert loss.response.nll != pytest.approx(loss.sequence.nll, rel=1e-3)
        assert loss.to_json()["response"]["tokens"] == loss.response.tokens


def test_samples_do_not_depend_on_batches_or_other_tasks(context):
    whole = task_losses(context, "test", TASKS, **SETTINGS)
    alone = task_losses(context, "test", TASKS[1:], **SETTINGS | {"batch_size": 3})
    assert alone["cell_sentence_modelling"].sequence.nll == pytest.approx(
        whole["cell_sentence_modelling"].sequence.nll, rel=1e-6
    )
    other = task_losses(context, "test", TASKS[1:], **SETTINGS | {"seed": 4})
    assert other["cell_sentence_modelling"].sequence.nll != alone["cell_sentence_modelling"].sequence.nll


def test_no_more_samples_than_units(context):
    labelled = Corpus(context.corpus.path).cells("test").fields("cell_type") != ""
    found = task_losses(context, "test", TASKS[:1], samples=10_000, seq_len=96, batch_size=32, resamples=10)
    assert found["cell_type_annotation"].n == labelled.sum()


def test_one_sample_has_no_interval(context):
    loss = task_losses(context, "test", TASKS[:1], **SETTINGS | {"samples": 1})["cell_type_annotation"]
    assert loss.response.low is None
    assert loss.response.nll > 0
    with pytest.raises(ValueError, match="samples=0 must be at least 1"):
        task_losses(context, "test", TASKS, **SETTINGS | {"samples": 0})


def test_tasks_without_data(context):
    tasks = [MixtureTask("question_answering"), *TASKS[:1]]
    assert list(task_losses(context, "test", tasks, **SETTINGS)) == ["cell_type_annotation"]
    with pytest.raises(MissingData, match="question_answering"):
        task_losses(context, "test", tasks, missing="error", **SETTINGS)


def test_a_better_model_has_a_lower_loss(context):
    """Uniform logits cost the logarithm of the vocabulary, whatever the text."""
    flat = dataclasses.replace(context, params=jax.tree.map(lambda x: x * 0, context.params))
    loss = task_losses(flat, "test", TASKS[:1], **SETTINGS)["cell_type_annotation"]
    assert loss.response.nll == pytest.approx(np.log(context.formatter.tokenizer.vocab_size), rel=1e-5)
