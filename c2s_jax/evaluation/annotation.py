"""Cell type annotation: ask the model for each held-out cell's type, beside baselines on the same split."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.data import request
from c2s_jax.evaluation import controls
from c2s_jax.evaluation.context import Context, dense_expression, sentences_of, some_of, templates_for
from c2s_jax.generation import Sampling
from c2s_jax.tasks import TASKS

UNPARSED = "unparsed"
TASK = "cell_type_annotation"


@dataclasses.dataclass(frozen=True)
class Annotations:
    """True and predicted labels of C cells, str [C]; answers that name no known label are ``UNPARSED``.

    ``confidence``, float64 [C], is the probability that the model gave to its answer, as a mean over prompts, to whose
    answers that were others it adds nothing.
    """

    true: NDArray
    predicted: NDArray
    confidence: NDArray
    answers: NDArray  # [C, P] free text, one a prompt
    cells: NDArray  # int64 [C], rows of the split

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: value.tolist() for name, value in vars(self).items()}

    @staticmethod
    def from_json(kept: dict[str, Any]) -> "Annotations":
        """What ``to_json`` gave."""
        types = {"confidence": np.float64, "cells": np.int64}
        return Annotations(**{name: np.array(value, types.get(name, np.str_)) for name, value in kept.items()})


def annotate(
    context: Context,
    split: str,
    *,
    prompts_per_cell: int = 1,
    max_cells: int | None = None,
    prompts: str = "c2s_jax",
    shuffle_genes: int | None = None,
) -> Annotations:
    """Annotate the labelled cells of a split, or ``max_cells`` of them (``some_of``), by greedy generation.

    Each cell is asked with ``prompts_per_cell`` templates; the answer with the largest summed probability wins.
    An answer counts only if it is one of the corpus' training labels, word for word. With a seed in ``shuffle_genes``
    the model reads each cell's genes in random order.
    """
    cells = context.corpus.cells(split)
    labels = cells.fields("cell_type")
    indices = some_of(np.flatnonzero(labels != ""), max_cells)
    known = set(context.corpus.cells("train").fields("cell_type")) - {""}
    templates, columns = templates_for(TASK, prompts, cells, indices)
    templates = templates[:prompts_per_cell]
    sentences = sentences_of(cells, indices, context.max_genes)
    if shuffle_genes is not None:
        sentences = sentences.shuffled(shuffle_genes)
    sentences = sentences.repeat(len(templates))
    requests = []
    for cell, n_genes in enumerate(np.diff(sentences.indptr)[:: len(templates)]):
        fields = {name: str(column[cell]) for name, column in columns.items()}
        requests += [request(t, fields, int(n_genes)) for t in templates]
    longest = max(len(context.formatter.tokenizer.encode(f" {label}.")) for label in known)
    samples = context.ask(requests, sentences, what="annotate", max_new_tokens=longest + 2, sampling=Sampling(0.0))
    answers = np.array([TASKS[TASK].parse(t) for t in samples.texts(context.formatter.tokenizer.decode)])
    answers = answers.reshape(-1, len(templates))
    weight = np.exp(samples.logprobs.sum(axis=1)).reshape(answers.shape)
    votes = [_vote(a, w, known) for a, w in zip(answers, weight)]
    predicted, confidence = (np.array(column) for column in zip(*votes))
    return Annotations(labels[indices], predicted, np.minimum(confidence, 1.0), answers, indices)


def _vote(answers: NDArray, weights: NDArray, known: set[str]) -> tuple[str, float]:
    """The winning label and its mean probability; where no answer is a label, that of the likeliest answer."""
    votes: dict[str, float] = {}
    for answer, weight in zip(answers, weights):
        votes[str(answer)] = votes.get(str(answer), 0.0) + float(weight)
    labels = [answer for answer in votes if answer in known]
    winner = max(labels or votes, key=lambda k: votes[k])
    return winner if labels else UNPARSED, votes[winner] / len(answers)


def annotation_metrics(
    context: Context, split: str, found: Annotations, shuffled: Annotations, *, seed: int = 0
) -> dict[str, Any]:
    """Accuracy and macro-F1 of the model, the majority class and a logistic regression on log expression.

    Scrambles: the answers to cells whose genes were in random order (``shuffled``), which a model that reads order has
    to beat, and the answers dealt out anew among cells. Each has ``accuracy_gain_ci``, the interval of how far the
    model is above it.
    """
    train, test = context.corpus.cells("train"), context.corpus.cells(split)
    train_rows = np.flatnonzero(train.fields("cell_type") != "")
    n_genes = len(context.corpus.genes)
    fitted = metrics.baselines(
        dense_expression(train, train_rows, n_genes),
        train.fields("cell_type")[train_rows],
        dense_expression(test, found.cells, n_genes),
        found.true,
    )
    dealt = np.random.Generator(np.random.Philox(key=seed)).permutation(found.predicted)
    scrambles = {"shuffled_genes": shuffled.predicted, "shuffled_cells": dealt}
    return {
        **metrics.label_scores(found.true, found.predicted),
        "unparsed": float(np.mean(found.predicted == UNPARSED)),
        "calibration": metrics.calibration(found.confidence, found.true == found.predicted).to_json(),
        "n": len(found.true),
        "baselines": {name: {"accuracy": b.accuracy, "macro_f1": b.macro_f1} for name, b in fitted.items()},
        "scrambles": {
            name: metrics.label_scores(found.true, answers) | {"accuracy_gain_ci": _gain(found, answers, seed)}
            for name, answers in scrambles.items()
        },
    }


def _gain(found: Annotations, answers: NDArray, seed: int) -> list[float] | None:
    right = (found.predicted == found.true).astype(float)
    return controls.interval(right - (answers == found.true), seed)
