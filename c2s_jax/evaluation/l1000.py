"""Responses to perturbations, pair by pair: a control and a treated profile of one cell line, as in L1000."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from c2s_jax import metrics
from c2s_jax.cells import repair_sentence
from c2s_jax.data import Corpus, MixtureTask, reconstruct
from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.data.contexts import CONTEXTS, Known
from c2s_jax.data.permute import keys
from c2s_jax.evaluation import controls
from c2s_jax.evaluation.context import (
    Context,
    Sentences,
    dense_expression,
    requests_in_turn,
    sentences_of,
    templates_for,
)
from c2s_jax.evaluation.perturbed import perturbed, untreated
from c2s_jax.evaluation.profiles import training_profiles
from c2s_jax.generation import Sampling
from c2s_jax.tasks import TASKS

TASK = "perturbation_response"
SCORES = ("tau", "spearman", "pearson", "pearson_delta")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """N treated cells of a split, int64 [N], and for each a control of its data set and type."""

    control: NDArray[np.int64]
    treated: NDArray[np.int64]


def l1000_metrics(
    context: Context, split: str, *, sampling: Sampling, genes: str = "", max_pairs: int, seed: int = 0
) -> dict[str, Any] | None:
    """Agreement of generated and measured treated profiles over genes, one pair at a time, means over pairs.

    Kendall's tau-b and Spearman's correlation compare the order in which genes were written with measured expression;
    Pearson's compares expression, read off the rank→expression line, and ``pearson_delta`` its change against the
    pair's control. A correlation of something constant is 0. Beside the model: the control itself, the mean training
    profile of the perturbation (any line) and of the line (any perturbation), and the control plus the mean change
    under the perturbation. Scramble: the same prompts with the name of another perturbation of the split. References:
    another treated cell of the same type and perturbation, and the cell through its own sentence.

    Parameters
    ----------
    genes
        Those that are compared, see ``chosen_genes``; empty for all.
    max_pairs
        Drawn by the seed, every treated cell once at most.

    Returns
    -------
    dict or None
        None where no treated cell is held out together with a control. Every other side has ``<score>_gain_ci``, the
        interval over pairs of how far the model is above it.
    """
    cells, train = context.corpus.cells(split), context.corpus.cells("train")
    subset = chosen_genes(context.corpus, genes)
    if len(subset) < 2:
        raise ValueError(f"evaluation.l1000_genes={genes!r} names {len(subset)} gene of the corpus; order needs two")
    pairs = pairs_of(context.corpus, split, max_pairs, seed)
    if pairs is None:
        return None
    lines, names = (cells.fields(field)[pairs.treated] for field in ("cell_type", "perturbation"))
    sides = Sides(context, split, pairs, subset)
    made, valid = sides.generated(names, sampling, seed)
    found = {
        "generated": made,
        "control": sides.of_profiles(sides.control),
        "real_through_its_sentence": sides.of_sentences(sentences_of(cells, pairs.treated, context.most_genes(2))),
    }
    treated, there, unseen = perturbed(context, train), untreated(context, train), 1.0
    if treated.any():
        means = training_profiles(train, treated, there, len(context.corpus.genes))
        unseen = float(np.mean(~means.perturbation.knows(names)))
        found["perturbation_mean"] = sides.of_profiles(means.perturbation.of(names)[:, subset])
        found["cell_line_mean"] = sides.of_profiles(means.line.of(lines)[:, subset])
        if there.any():
            found["mean_shift"] = sides.of_profiles(sides.control + means.shift.of(names)[:, subset])
    if (others := controls.elsewhere(names, seed)) is not None:
        found["shuffled_perturbations"] = sides.generated(names[others], sampling, seed)[0]
    told = {name: _told(scores, found["generated"], seed) for name, scores in found.items()}
    if (again := _replicates(pairs.treated, lines, names, seed)) is not None:
        first, second = again
        told["real_vs_real"] = controls.means(sides.part(first).of_profiles(sides.treated[second])) | {"n": len(first)}
    tau = found["generated"]["tau"]
    return told.pop("generated") | {
        "n": len(names),
        "genes": len(subset),
        "valid": valid,
        "unseen": unseen,
        "tau_by_perturbation": {str(name): float(tau[names == name].mean()) for name in np.unique(names)},
        "scrambles": {k: told.pop(k) for k in ("shuffled_perturbations",) if k in told},
        "references": {k: told.pop(k) for k in ("real_vs_real", "real_through_its_sentence") if k in told},
        "baselines": told,
    }


def pairs_of(corpus: Corpus, split: str, most: int, seed: int) -> Pairs | None:
    """Pairs of a split, drawn by the seed; matched as the task of training matches them."""
    context = CONTEXTS[TASKS[TASK].context](Known(corpus, split), MixtureTask(TASK))
    units = np.flatnonzero(context.usable())
    if not len(units):
        return None
    rng = np.random.Generator(np.random.Philox(key=seed))
    units = np.sort(rng.permutation(units)[:most])
    lists = context.choose(units, keys(seed, units)).lists
    return Pairs(lists[::2], lists[1::2])


class Sides:
    """What is compared with the treated cells of some pairs, over some genes.

    A side is its scores, one a pair: name → float64 [N].
    """

    def __init__(self, context: Context, split: str, pairs: Pairs, subset: NDArray[np.int64]):
        self._context, self._split, self._pairs, self._subset = context, split, pairs, subset
        self._cells, n_genes = context.corpus.cells(split), len(context.corpus.genes)
        self.control, self.treated = (
            dense_expression(self._cells, rows, n_genes)[:, subset] for rows in (pairs.control, pairs.treated)
        )

    def part(self, which: NDArray[np.int64]) -> "Sides":
        """The same for some of the pairs."""
        pairs = Pairs(self._pairs.control[which], self._pairs.treated[which])
        return Sides(self._context, self._split, pairs, self._subset)

    def of_profiles(self, expression: NDArray) -> dict[str, NDArray[np.float64]]:
        """Of expression [N, G of the subset]."""
        return self._scores(expression, expression)

    def of_sentences(self, sentences: Sentences) -> dict[str, NDArray[np.float64]]:
        """Of genes in order: expression is read off the line of each treated cell's data set."""
        datasets = self._cells.dataset_ids[self._pairs.treated]
        expression = reconstruct(self._context.corpus, sentences.lists(), datasets, self._subset)
        return self._scores(_order(sentences, len(self._context.corpus.genes))[:, self._subset], expression)

    def generated(
        self, perturbations: NDArray, sampling: Sampling, seed: int
    ) -> tuple[dict[str, NDArray[np.float64]], float]:
        """Of what the model answers when these perturbations are named, and the share of its words that are genes."""
        context, rows = self._context, self._pairs.treated
        templates, columns = templates_for(TASK, "c2s_jax", self._cells, rows)
        columns |= {"perturbation": perturbations}
        shown = sentences_of(self._cells, self._pairs.control, context.max_genes)
        requests = requests_in_turn(templates, columns, np.diff(shown.indptr))
        samples = context.ask(
            requests,
            shown,
            what="respond",
            max_new_tokens=context.tokens_of(context.longest_sentence(2)),
            sampling=sampling,
            seed=seed,
        )
        texts = [TASKS[TASK].parse(text) for text in samples.texts(context.formatter.tokenizer.decode)]
        repaired = [repair_sentence(text, context.corpus.genes) for text in texts]
        sentences = Sentences.of([context.corpus.genes.ids(found) for found, _ in repaired])
        words, valid = (sum(getattr(report, key) for _, report in repaired) for key in ("n_words", "n_valid"))
        return self.of_sentences(sentences), valid / max(words, 1)

    def _scores(self, order: NDArray, expression: NDArray) -> dict[str, NDArray[np.float64]]:
        ranks, measured = (stats.rankdata(x, axis=1) for x in (order, self.treated))
        return {
            "tau": np.asarray(metrics.kendall_tau_b(order, self.treated)),
            "spearman": _correlations(ranks, measured),
            "pearson": _correlations(expression, self.treated),
            "pearson_delta": _correlations(expression - self.control, self.treated - self.control),
        }


def _order(sentences: Sentences, n_genes: int) -> NDArray[np.int64]:
    """Minus the place of each gene in each sentence [N, G]; genes that one lacks share its lowest."""
    lengths = np.diff(sentences.indptr)
    out = np.repeat(-lengths[:, None], n_genes, axis=1)
    for row, genes in zip(out, sentences.lists()):
        row[genes] = -np.arange(len(genes))
    return out


def _correlations(left: NDArray, right: NDArray) -> NDArray[np.float64]:
    """Pearson's correlation of each row, float64 [N]; 0 where a side is constant."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (left.astype(np.float64), right.astype(np.float64)))
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    constant = (np.ptp(left, axis=1) == 0) | (np.ptp(right, axis=1) == 0)
    return np.where(constant, 0.0, np.einsum("NG,NG->N", a, b) / np.where(constant, 1.0, scale))


def _replicates(
    rows: NDArray[np.int64], lines: NDArray, names: NDArray, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Pairs whose line and perturbation another has, too, and one such other of each."""
    _, group = np.unique(np.char.add(np.char.add(lines, "\t"), names), return_inverse=True)
    rng = np.random.Generator(np.random.Philox(key=seed))
    first, second = [], []
    for i in range(len(rows)):
        others = np.flatnonzero((group == group[i]) & (rows != rows[i]))
        if len(others):
            first.append(i)
            second.append(rng.choice(others))
    return (np.array(first), np.array(second)) if first else None


def _told(scores: dict[str, NDArray], model: dict[str, NDArray], seed: int) -> dict[str, Any]:
    """Means over pairs, with intervals unless there is a single one."""
    found = controls.told(scores, seed, below=None if scores is model else model)
    return {name: value for name, value in found.items() if value is not None}
