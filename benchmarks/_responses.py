"""Generated responses to interferon against the held-out cells: distances by condition, with bootstrap intervals.

Cells are compared by log10 expression; that of a generated cell is read off the rank→expression line. Spaces are
principal components of training cells. Every figure is the unweighted mean over held-out conditions (type, treatment).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from benchmarks._grpo_runs import restored
from c2s_jax import metrics, workdirs
from c2s_jax.cells import RepairReport, repair_sentence
from c2s_jax.data import Corpus, Formatter
from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.evaluation import Context
from c2s_jax.evaluation.context import dense_expression, sentences_of
from c2s_jax.evaluation.generation import generate_cells
from c2s_jax.evaluation.resampled import Score
from c2s_jax.evaluation.sides import named
from c2s_jax.generation import Sampler, Sampling
from c2s_jax.text import GeneTokenTable, load_tokenizer

TASK = "perturbed_cell_generation"
COMPONENTS = {"interferon": 16, "other": 16}


def write_cells(workdir: Path, control: str, *, seed: int) -> list[str]:
    """What a run's model writes for each held-out perturbed cell, kept in its folder."""
    path = workdir / "held_out.json"
    if path.exists():
        return json.loads(path.read_text())
    config, model = restored(workdir)
    corpus_dir, tokenizer_path = workdirs.data_paths(config, str(workdir))
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
    sampler = Sampler(
        model["graphdef"],
        stop_ids=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        batch_size=128,
        mesh=model["mesh"],
    )
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    context = Context(**model, corpus=corpus, formatter=formatter, sampler=sampler, max_genes=len(corpus.genes))
    rows = treated(corpus, "test", control)
    texts = generate_cells(context, "test", sampling=Sampling(), seed=seed, task=TASK, rows=rows).texts
    workdirs.write_json(str(path), texts)
    return texts


def treated(corpus: Corpus, split: str, control: str) -> NDArray[np.int64]:
    """Cells of a split that are not controls."""
    return np.flatnonzero(corpus.cells(split).fields("perturbation") != control)


@dataclass(frozen=True)
class Side:
    """Cells that stand for the held-out ones: condition [C], log expression [C, G], reports of what was mended."""

    conditions: NDArray[np.str_]
    expression: NDArray[np.float32]
    texts: Sequence[str] = ()
    reports: Sequence[RepairReport] = ()


class Measure:
    """The held-out cells of a corpus, and what is measured against them."""

    def __init__(self, corpus: Corpus, control: str, genes: str):
        self.corpus, self.control = corpus, control
        self.inside = chosen_genes(corpus, genes)
        self.outside = np.setdiff1d(np.arange(len(corpus.genes)), self.inside)
        train, test = corpus.cells("train"), corpus.cells("test")
        self.train = dense_expression(train, np.arange(len(train)), len(corpus.genes))
        self.rows = treated(corpus, "test", control)
        types, names = test.fields("cell_type")[self.rows], test.fields("perturbation")[self.rows]
        self.real = Side(
            np.array([f"{t} · {p}" for t, p in zip(types, names)]),
            dense_expression(test, self.rows, len(corpus.genes)),
        )
        self.conditions = np.unique(self.real.conditions).tolist()
        columns = {"interferon": self.inside, "other": self.outside}
        self._columns = columns
        self._pca = {
            name: PCA(COMPONENTS[name], random_state=0).fit(self.train[:, genes]) for name, genes in columns.items()
        }

    def generated(self, texts: Sequence[str]) -> Side:
        """Cells that a model wrote, one for each held-out cell."""
        genes = self.corpus.genes
        repaired = [repair_sentence(text, genes) for text in texts]
        lists = [genes.ids(names) for names, _ in repaired]
        expression = self.corpus.rank_expressions[0].reconstruct(lists, genes).toarray()
        return Side(self.real.conditions, expression, texts, [report for _, report in repaired])

    def references(self) -> dict[str, Side]:
        """Untreated cells of the type; these moved by the mean response of other types; held-out cells' sentences."""
        train = self.corpus.cells("train")
        types, names = train.fields("cell_type"), train.fields("perturbation")
        controls, shifted, labels = [], [], []
        seen = [t for t in np.unique(types) if (names[types == t] != self.control).any()]
        shifts = [
            self.train[(types == t) & (names != self.control)].mean(0)
            - self.train[(types == t) & (names == self.control)].mean(0)
            for t in seen
        ]
        for condition in self.conditions:
            cells = self.train[(types == condition.split(" · ")[0]) & (names == self.control)]
            controls.append(cells)
            shifted.append(np.maximum(cells + np.mean(shifts, axis=0), 0))
            labels += [condition] * len(cells)
        sentences = sentences_of(self.corpus.cells("test"), self.rows, len(self.corpus.genes))
        own = self.corpus.rank_expressions[0].reconstruct(sentences.lists(), self.corpus.genes).toarray()
        return {
            "untreated cells": Side(np.array(labels), np.concatenate(controls)),
            "untreated cells + mean response": Side(np.array(labels), np.concatenate(shifted)),
            "held-out cells through their sentences": Side(self.real.conditions, own),
        }

    def reward(self, side: Side) -> list[NDArray[np.float64]]:
        """Of each cell of each condition: minus the mean squared difference from its real cells, interferon genes."""
        out = []
        for condition in self.conditions:
            real = self.real.expression[self.real.conditions == condition][:, self.inside].astype(np.float64)
            made = side.expression[side.conditions == condition][:, self.inside].astype(np.float64)
            squares = np.square(made).mean(1) - 2 * made @ real.mean(0) / real.shape[1] + np.square(real).mean()
            out.append(-squares)
        return out

    def space(self, side: Side, name: str) -> list[NDArray[np.float32]]:
        """Cells of each condition in the principal components of some genes."""
        cells = self._pca[name].transform(side.expression[:, self._columns[name]]).astype(np.float32)
        return [cells[side.conditions == condition] for condition in self.conditions]

    def figures(self, sides: Sequence[Side], *, resamples: int = 500) -> dict[str, Any]:
        """Means over runs, with 95 % intervals over resampled cells, those of each run and condition apart."""
        rewards = [self._reward(side, number, resamples) for number, side in enumerate(sides)]
        scfid = {
            name: [self._scfid(side, number, name, resamples) for number, side in enumerate(sides)]
            for name in COMPONENTS
        }
        found: dict[str, Any] = {"reward": _interval(rewards)}
        found |= {f"scfid_{name}": _interval(scores) for name, scores in scfid.items()}
        everything = [self._distances(side) for side in sides]
        found |= {key: float(np.mean([e[key] for e in everything])) for key in everything[0]}
        found["by_condition"] = {
            condition: {
                "reward": float(np.mean([scores[condition].value for scores in rewards])),
                "scfid_interferon": float(np.mean([scores[condition].value for scores in scfid["interferon"]])),
            }
            for condition in self.conditions
        }
        return found

    def _reward(self, side: Side, number: int, resamples: int) -> dict[str, Score]:
        """By condition."""
        return {
            condition: Score(float(x.mean()), _weights(f"{number} {condition}", len(x), resamples) @ x)
            for condition, x in zip(self.conditions, self.reward(side))
        }

    def _scfid(self, side: Side, number: int, name: str, resamples: int) -> dict[str, Score]:
        """By condition; the real cells are drawn alike for all runs."""
        out = {}
        for condition, real, made in zip(self.conditions, self.space(self.real, name), self.space(side, name)):
            value, influence = metrics.scfid(real, made), metrics.scfid_influence(real, made)
            drawn = (
                _weights(f"real {condition}", len(real), resamples),
                _weights(f"{number} {condition}", len(made), resamples),
            )
            out[condition] = Score(value, value + influence.resampled(*drawn))
        return out

    def _distances(self, side: Side) -> dict[str, float]:
        """MMD, W2 and spread over all genes; validity and diversity of what was written."""
        real = [
            np.concatenate(x, axis=1) for x in zip(self.space(self.real, "interferon"), self.space(self.real, "other"))
        ]
        made = [np.concatenate(x, axis=1) for x in zip(self.space(side, "interferon"), self.space(side, "other"))]
        inside = zip(self.space(self.real, "interferon"), self.space(side, "interferon"))
        out = {
            "mmd": np.mean([metrics.mmd(a, b, gammas="median") for a, b in zip(real, made)]),
            "wasserstein": np.mean([metrics.wasserstein(a, b) for a, b in zip(real, made)]),
            "spread_interferon": np.mean([b.var(0, ddof=1).sum() / a.var(0, ddof=1).sum() for a, b in inside]),
            "spread": np.mean([b.var(0, ddof=1).sum() / a.var(0, ddof=1).sum() for a, b in zip(real, made)]),
        }
        if side.reports:
            words = sum(r.n_words for r in side.reports)
            out["valid"] = sum(r.n_valid for r in side.reports) / words
            out["unique"] = 1 - sum(r.n_duplicate for r in side.reports) / words
            out["distinct"] = len(set(side.texts)) / len(side.texts)
            out["genes"] = float((side.expression > 0).sum(1).mean())
        return {key: float(value) for key, value in out.items()}


def _weights(what: str, n: int, resamples: int) -> NDArray[np.float64]:
    return metrics.cell_weights(named(what, np.arange(n)), resamples=resamples)


def _interval(scores: Sequence[dict[str, Score]]) -> dict[str, float]:
    """Of the mean over runs and their conditions, cells drawn anew."""
    every = [score for by_condition in scores for score in by_condition.values()]
    mean = float(np.mean([score.value for score in every]))
    low, high = metrics.shifted_interval(mean, np.mean([score.again for score in every], axis=0))
    return {"mean": mean, "low": low, "high": high}
