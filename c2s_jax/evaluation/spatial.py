"""Cells in space: their niche, their neighbours, and which cells lie together, on held-out neighbourhoods."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.cells import repair_sentence
from c2s_jax.data.task_stream import Draw
from c2s_jax.evaluation import controls
from c2s_jax.evaluation.context import Context, Sentences
from c2s_jax.evaluation.examples import Examples, examples_of, longest_answer
from c2s_jax.generation import Sampling
from c2s_jax.tasks import TASKS

LABELS = ("niche_annotation", "same_neighbourhood", "same_niche")
GENERATION = "neighbour_generation"
TRAINING = 2_000  # examples that the logistic regression is fitted on, at most


def spatial_metrics(
    context: Context, split: str, *, sampling: Sampling, max_examples: int | None = None, seed: int = 0
) -> dict[str, Any] | None:
    """The four spatial tasks, those that the corpus has data for, each by name; None where it has none.

    ``niche_annotation``, ``same_neighbourhood`` and ``same_niche``: accuracy and macro-F1 of greedy answers, beside the
    majority answer of training examples and a logistic regression on expression. Its features are the mean of the cells
    shown where they share the label, and the gap |first cell − mean of the others| where they are compared. Scramble:
    the same questions with their cells dealt out anew (but for the first one, where there is one to compare with).

    ``neighbour_generation``: overlap and Jaccard of a sampled neighbour with the real one. Beside it the cell itself
    repeated, and the neighbours of other held-out cells; scramble: the neighbour asked for beside another cell.

    Accuracy, overlap and Jaccard have ``<metric>_ci``, the interval over examples; those of a scramble
    ``<metric>_gain_ci``, that of how far the model is above it.
    """
    out: dict[str, Any] = {}
    for task in LABELS:
        held_out, train = (
            examples_of(context, name, task, max_examples=n, seed=seed)
            for name, n in ((split, max_examples), ("train", TRAINING))
        )
        if held_out is not None and train is not None:
            out[task] = _labels(held_out, train, seed)
    if (held_out := examples_of(context, split, GENERATION, max_examples=max_examples, seed=seed)) is not None:
        out[GENERATION] = _neighbours(held_out, sampling, seed)
    return out or None


def _labels(held_out: Examples, train: Examples, seed: int) -> dict[str, Any]:
    rng = np.random.Generator(np.random.Philox(key=seed))
    compared = held_out.task.task != "niche_annotation"
    true, known = (np.array([TASKS[e.task.task].parse(r) for r in e.references]) for e in (held_out, train))
    room = longest_answer([held_out, train])

    def answered(draw: Draw | None = None) -> NDArray[np.str_]:
        return np.array(held_out.ask(sampling=Sampling(0.0), max_new_tokens=room, draw=draw))

    def scores(answers: NDArray[np.str_]) -> dict[str, Any]:
        return metrics.label_scores(true, answers) | {"unparsed": float(np.mean(~np.isin(answers, known)))}

    answers = answered()
    scrambled = answered(held_out.with_shuffled_lists(rng, keep_first=compared))
    right, by_chance = (np.asarray(given == true, np.float32) for given in (answers, scrambled))
    fitted = metrics.baselines(_features(train, compared), known, _features(held_out, compared), true)
    return scores(answers) | {
        "accuracy_ci": controls.interval(right, seed),
        "n": len(held_out),
        "baselines": {name: {"accuracy": b.accuracy, "macro_f1": b.macro_f1} for name, b in fitted.items()},
        "scrambles": {
            "shuffled_cells": scores(scrambled) | {"accuracy_gain_ci": controls.interval(right - by_chance, seed)}
        },
    }


def _features(examples: Examples, compared: bool) -> NDArray[np.float32]:
    """What a linear model sees of the cells shown: their mean, or how the first one differs from the others."""
    first, others = examples.expression(0), examples.expression(None)
    if compared:
        return np.abs(first - others)
    shown = np.diff(examples.draw.draft.indptr)[:, None]
    return (first + others * (shown - 1)) / shown


def _neighbours(held_out: Examples, sampling: Sampling, seed: int) -> dict[str, Any]:
    rng = np.random.Generator(np.random.Philox(key=seed))
    context, genes = held_out.context, held_out.context.corpus.genes
    room = context.tokens_of(max(len(x) for x in held_out.sentences(-1).lists()))
    target = held_out.sentences(-1)

    def made(draw: Draw | None = None) -> Sentences:
        texts = held_out.ask(sampling=sampling, max_new_tokens=room, draw=draw, seed=seed)
        return Sentences.of([genes.ids(repair_sentence(text, genes)[0]) for text in texts])

    def scores(sentences: Sentences) -> dict[str, NDArray]:
        pair = sentences.lists(), target.lists()
        return {"overlap": metrics.gene_overlap(*pair), "jaccard": metrics.gene_jaccard(*pair)}

    model, scrambled = scores(made()), scores(made(held_out.with_shuffled_lists(rng)))
    return controls.told(model, seed) | {
        "n": len(held_out),
        "baselines": {
            "cell_itself": controls.means(scores(held_out.sentences(0))),
            "other_neighbours": controls.means(scores(target.select(np.roll(np.arange(len(target)), 1)))),
        },
        "scrambles": {"shuffled_cells": controls.told(scrambled, seed, below=model)},
    }
