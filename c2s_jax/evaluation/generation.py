"""Conditional cell generation: one cell for each held-out cell's type, measured against the real ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.cells import GeneVocabulary, RepairReport, repair_sentence
from c2s_jax.data import reconstruct
from c2s_jax.evaluation.context import (
    Context,
    Sentences,
    dense_expression,
    principal,
    requests_in_turn,
    sentences_of,
    some_of,
    templates_for,
)
from c2s_jax.evaluation.embedding import Embedder
from c2s_jax.generation import Sampling
from c2s_jax.tasks import TASKS

TASK = "cell_type_conditioned_generation"


@dataclasses.dataclass(frozen=True)
class Generated:
    """Cells generated for C held-out cells.

    Attributes
    ----------
    cells
        int64 [C], the held-out cells that gave the conditions.
    labels
        str [C], the condition.
    texts
        What the model wrote.
    sentences
        What was left after repair.
    repairs
        What was repaired.
    """

    cells: NDArray[np.int64]
    labels: NDArray
    texts: list[str]
    sentences: Sentences
    repairs: list[RepairReport]

    def to_json(self) -> dict[str, Any]:
        """What was asked and written, as JSON values."""
        return {"cells": self.cells.tolist(), "labels": self.labels.tolist(), "texts": self.texts}

    @staticmethod
    def from_json(kept: dict[str, Any], genes: GeneVocabulary) -> "Generated":
        """From what ``to_json`` gave; texts are repaired to lists of ``genes``."""
        repaired = [repair_sentence(t, genes) for t in kept["texts"]]
        return Generated(
            np.array(kept["cells"], np.int64),
            np.array(kept["labels"], np.str_),
            kept["texts"],
            Sentences.of([genes.ids(found) for found, _ in repaired]),
            [report for _, report in repaired],
        )


def generate_cells(
    context: Context,
    split: str,
    *,
    sampling: Sampling,
    seed: int = 0,
    max_cells: int | None = None,
    prompts: str = "c2s_jax",
    task: str = TASK,
    rows: NDArray[np.int64] | None = None,
    values: Mapping[str, NDArray] = {},
) -> Generated:
    """Sample one cell sentence for the type of each labelled cell of ``split``, templates taken in turn.

    Of more than ``max_cells`` cells ``some_of`` takes so many. ``rows`` says for which cells instead. ``values`` takes
    the place of fields of these cells in their prompts.
    """
    cells = context.corpus.cells(split)
    all_labels = cells.fields("cell_type")
    indices = some_of(np.flatnonzero(all_labels != ""), max_cells) if rows is None else rows
    templates, columns = templates_for(task, prompts, cells, indices)
    columns |= {name: column for name, column in values.items() if name in columns}
    real = sentences_of(cells, indices, context.most_genes())
    requests = requests_in_turn(templates, columns, np.diff(real.indptr))
    none = Sentences.of([np.empty(0, np.int32)] * len(requests))
    samples = context.ask(
        requests,
        none,
        what="generate",
        max_new_tokens=context.tokens_of(context.longest_sentence()),
        sampling=sampling,
        seed=seed,
        grammar=context.grammar,
    )
    texts = [TASKS[task].parse(t) for t in samples.texts(context.formatter.tokenizer.decode)]
    return Generated.from_json({"cells": indices, "labels": all_labels[indices], "texts": texts}, context.corpus.genes)


@dataclasses.dataclass(frozen=True)
class Population:
    """Cells under their labels: sentences, expression, and points in each space that they are compared in."""

    labels: NDArray
    sentences: Sentences
    expression: NDArray[np.float32]
    spaces: Mapping[str, NDArray]


class Spaces:
    """Embedding spaces of cells: PCA of the training expression, and the model's own."""

    PCA = "pca"
    MODEL = "model"

    def __init__(self, context: Context, *, components: int):
        train = context.corpus.cells("train")
        self._corpus = context.corpus
        expression = dense_expression(train, np.arange(len(train)), len(context.corpus.genes))
        self._pca = principal(expression, components)
        self._embed = Embedder(context)

    def describe(self) -> dict[str, str]:
        """What each space is, for people."""
        n, explained = self._pca.n_components_, self._pca.explained_variance_ratio_.sum()
        return {
            self.PCA: f"the first {n} principal components of training cells' expression ({explained:.0%} of variance)",
            self.MODEL: "the model's own embedding, the mean of its last hidden states over a cell's genes",
        }

    def of_sentences(self, labels: NDArray, sentences: Sentences, datasets: NDArray[np.int32]) -> Population:
        """Cells known by their order of genes: expression is read off the rank→expression line of their data set."""
        expression = reconstruct(self._corpus, sentences.lists(), datasets)
        return Population(labels, sentences, expression, self._spaces(expression, sentences))

    def of_cells(self, labels: NDArray, expression: NDArray, sentences: Sentences) -> Population:
        """Real cells with their measured expression."""
        return Population(labels, sentences, expression, self._spaces(expression, sentences))

    def _spaces(self, expression: NDArray, sentences: Sentences) -> dict[str, NDArray]:
        return {self.PCA: self._pca.transform(expression), self.MODEL: self._embed(sentences)}


@dataclasses.dataclass(frozen=True)
class Populations:
    """Everything that generation is measured with: held-out and training cells, generated ones, references."""

    real: Population
    train: Population
    generated: Population
    real_sentences: Population  # held-out cells, expression through their own sentence
    shuffled: Population  # generated cells under shuffled labels
    drawn: Population | None  # training cells drawn by label: another sample of real cells; None where all are new
    spaces: dict[str, str]  # what each space is, for people


def populations(context: Context, split: str, found: Generated, *, components: int, seed: int) -> Populations:
    """Embed held-out, training and generated cells, and the references made of them."""
    spaces = Spaces(context, components=components)
    held_out, train = context.corpus.cells(split), context.corpus.cells("train")
    n_genes = len(context.corpus.genes)
    rng = np.random.Generator(np.random.Philox(key=seed))

    def real(cells: Any, rows: NDArray) -> Population:
        labels, sentences = cells.fields("cell_type")[rows], sentences_of(cells, rows, context.most_genes())
        return spaces.of_cells(labels, dense_expression(cells, rows, n_genes), sentences)

    train_labels = train.fields("cell_type")
    candidates = {label: np.flatnonzero(train_labels == label) for label in np.unique(found.labels)}
    drawn = np.array([rng.choice(candidates[x]) for x in found.labels if len(candidates[x])], np.int64)
    datasets = held_out.dataset_ids[found.cells]
    generated = spaces.of_sentences(found.labels, found.sentences, datasets)
    shuffled = dataclasses.replace(generated, labels=rng.permutation(generated.labels))
    there = real(held_out, found.cells)
    own = spaces.of_sentences(found.labels, there.sentences, datasets)
    return Populations(
        there,
        real(train, np.flatnonzero(train_labels != "")),
        generated,
        own,
        shuffled,
        real(train, drawn) if len(drawn) else None,
        spaces.describe(),
    )


def generation_metrics(context: Context, split: str, found: Generated, cells: Populations, *, k: int) -> dict[str, Any]:
    """Validity, overlap, k-NN accuracy and scFID of generated cells, beside the same of the references.

    Overlap is with the held-out cell that gave the condition, its sentence cut to ``most_genes``; the reference draws a
    training cell of the same type instead, cut alike. k-NN votes among training cells.
    """
    real_lists = cells.real.sentences.lists()
    words = sum(r.n_words for r in found.repairs)
    valid = sum(r.n_valid for r in found.repairs)
    duplicates = sum(r.n_duplicate for r in found.repairs)
    out: dict[str, Any] = {
        "valid": valid / max(words, 1),
        "unique": 1 - duplicates / max(valid, 1),
        "overlap": float(np.mean(metrics.gene_overlap(found.sentences.lists(), real_lists))),
        "jaccard": float(np.mean(metrics.gene_jaccard(found.sentences.lists(), real_lists))),
        "genes": float(np.mean(np.diff(found.sentences.indptr))),
        "real_genes": float(np.mean([len(x) for x in real_lists])),
        "n": len(found.labels),
        "k": k,
    }
    for name, population in _compared(cells).items():
        measured = _distances(cells, population, k)
        if name == "generated":
            out |= measured
        else:
            out.setdefault("references", {})[name] = measured
    if cells.drawn and len(cells.drawn.labels) == len(real_lists):
        pair = cells.drawn.sentences.lists(), real_lists
        out["references"]["real_vs_real"] |= {
            "overlap": float(np.mean(metrics.gene_overlap(*pair))),
            "jaccard": float(np.mean(metrics.gene_jaccard(*pair))),
        }
    return out


def _compared(cells: Populations) -> dict[str, Population]:
    real = {"real_vs_real": cells.drawn} if cells.drawn else {}
    own = {"real_through_its_sentence": cells.real_sentences}
    return {"generated": cells.generated, **real, **own, "shuffled_labels": cells.shuffled}


def _distances(cells: Populations, population: Population, k: int) -> dict[str, Any]:
    train, real = cells.train, cells.real
    k = min(k, len(train.labels))
    out: dict[str, Any] = {
        "knn_accuracy": metrics.knn_accuracy(
            train.spaces[Spaces.PCA], train.labels, population.spaces[Spaces.PCA], population.labels, k=k
        )
    }
    for space in (Spaces.PCA, Spaces.MODEL):
        found = metrics.scfid_by_condition(real.spaces[space], population.spaces[space], real.labels, population.labels)
        suffix = "" if space == Spaces.PCA else f"_{space}"
        out[f"scfid{suffix}"] = found.mean
        out[f"scfid{suffix}_by_condition"] = dict(found.per_condition)
        if space == Spaces.PCA:
            out["scfid_n"] = {str(c): [int(x) for x in n] for c, n in found.n.items()}
            out["skipped_conditions"] = [str(c) for c in found.skipped]
    return out
