"""Texts that the model writes about held-out cells: captions, abstracts, answers to questions (BERTScore)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.data import Corpus
from c2s_jax.data.task_stream import Draw
from c2s_jax.evaluation import controls
from c2s_jax.evaluation.context import Context
from c2s_jax.evaluation.examples import Examples, examples_of, longest_answer
from c2s_jax.generation import Sampling
from c2s_jax.metrics.bertscore import TokenEncoder
from c2s_jax.tasks import TASKS

TASK_OF = {"caption": "cluster_captioning", "abstract": "abstract_generation", "qa": "question_answering"}
TRAINING_ANSWERS = 256  # that baselines choose from
CANDIDATES = 16  # of them, for the most central
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Asked:
    """N examples of a split with what the data say.

    Attributes
    ----------
    examples
        Each cell or question once.
    references
        All texts that answer a prompt: the captions of its cluster, the abstracts of its data set, or its one answer.
    units
        What a prompt is about, e.g. "dataset · cluster"; prompts of one unit share their references.
    """

    examples: Examples
    references: list[list[str]]
    units: NDArray[np.str_]
    tissues: NDArray[np.str_]


def text_metrics(
    context: Context, split: str, suite: str, *, encoder: TokenEncoder, layer: int | None, n: int, seed: int = 0
) -> dict[str, Any] | None:
    """BERTScore F1 of greedy answers, the best of several references counting, with a bootstrap interval.

    Beside the model: a training answer drawn at random (of the same tissue where the prompt's cells have one), the
    training answer nearest to all others in the mean, and, where a prompt has several references, one of them against
    the rest. Scrambles: the model's answers to prompts about something else, and the model asked again, with cells of
    another unit (``shuffled_cells``) or with another question about the same cells (``shuffled_questions``). Where
    there are both, prompts about what training has seen (``in_distribution``: the data set, for captions the cluster)
    and about what it has not are told apart, too, each beside its own baselines and scrambles (``by_distribution``).

    Parameters
    ----------
    suite
        A key of ``TASK_OF``.
    layer
        Of the encoder; None for the last.
    n
        Prompts to ask, drawn by ``seed``; fewer where the split has fewer cells or questions.

    Returns
    -------
    dict or None
        None where the split has no such texts. Scrambles have ``bertscore_gain_ci``, the interval over prompts of how
        far the model is above them.
    """
    asked, train = (
        asked_of(context, part, suite, count, seed) for part, count in ((split, n), ("train", TRAINING_ANSWERS))
    )
    if asked is None:
        return None
    room = longest_answer([asked.examples, train.examples if train else None])

    def answered(draw: Draw | None = None) -> list[str]:
        return asked.examples.ask(sampling=Sampling(0.0), max_new_tokens=room, draw=draw)

    def f1(texts: list[str], references: list[list[str]]) -> NDArray[np.float64]:
        return metrics.bertscore(texts, references, encoder, layer=layer).f1

    answers = answered()
    scored = metrics.bertscore(answers, asked.references, encoder, layer=layer)
    by_rule = _baselines(asked, train, f1, seed) if train else {}
    baselines = {name: f1(texts, asked.references) for name, texts in by_rule.items()}
    scrambled = {name: answered(draw) for name, draw in _scrambles(asked, suite, seed).items()}
    if (others := controls.elsewhere(asked.units, seed)) is not None:
        scrambled["shuffled_prompts"] = [answers[i] for i in others]
    scrambles = {name: f1(texts, asked.references) for name, texts in scrambled.items()}
    several = [i for i, texts in enumerate(asked.references) if len(texts) > 1]
    references = {}
    if several:
        left_out = f1([asked.references[i][0] for i in several], [asked.references[i][1:] for i in several])
        references["another_reference"] = {"bertscore": float(left_out.mean())}
    seen = np.isin(asked.units, _units(context.corpus, "train", suite))
    parts = {"in_distribution": seen, "out_of_distribution": ~seen}
    return {
        "precision": float(scored.precision.mean()),
        "recall": float(scored.recall.mean()),
        "configuration": scored.configuration,
        "exact": float(np.mean([a in refs for a, refs in zip(answers, asked.references)])),
        "references": references,
        "samples": _samples(asked, answers, scored.f1),
        **_told(scored.f1, baselines, scrambles, seed),
        "by_distribution": {
            name: _told(*_at(rows, scored.f1, baselines, scrambles), seed)
            for name, rows in parts.items()
            if 0 < rows.sum() < len(rows)
        },
    }


def asked_of(context: Context, split: str, suite: str, n: int, seed: int) -> Asked | None:
    """Examples of a suite; None where the split has no data for them."""
    corpus, task = context.corpus, TASK_OF[suite]
    if split not in corpus.splits:
        return None
    if (examples := examples_of(context, split, task, max_examples=n, seed=seed)) is None:
        return None
    cells = corpus.cells(split)
    own = [TASKS[task].parse(text) for text in examples.references]
    texts = []
    columns = {d["caption_field"]: cells.fields(d["caption_field"]) for d in corpus.datasets if d.get("captions")}
    for answer, cell in zip(own, examples.anchors):
        entry = corpus.datasets[cells.dataset_ids[cell]]
        more = []
        if suite == "abstract":
            more = entry.get("abstracts", [])
        elif suite == "caption":
            more = entry["captions"][str(columns[entry["caption_field"]][cell])]
        texts.append([answer, *(t for t in map(TASKS[task].parse, more) if t and t != answer)])
    units, tissues = _units(corpus, split, suite), cells.fields("tissue")
    return Asked(examples, texts, units[examples.anchors], tissues[examples.anchors])


def _units(corpus: Corpus, split: str, suite: str) -> NDArray[np.str_]:
    """What a text about each cell of a split is about: its data set, for captions its cluster, str [C]."""
    cells = corpus.cells(split)
    units = np.array([d["name"] for d in corpus.datasets], dtype=object)[cells.dataset_ids]
    for number, entry in enumerate(corpus.datasets):
        if suite == "caption" and entry.get("captions"):
            own = np.flatnonzero(cells.dataset_ids == number)
            units[own] += " · " + cells.fields(entry["caption_field"])[own].astype(object)
    return units.astype(np.str_)


def _scrambles(asked: Asked, suite: str, seed: int) -> dict[str, Draw]:
    """The same prompts with what they ask about exchanged, where there is something else to exchange it for."""
    out, examples = {}, asked.examples
    if (others := controls.elsewhere(asked.units, seed)) is not None:
        out["shuffled_cells"] = examples.with_lists_of(others)
    if suite == "qa":
        questions = np.array(examples.values("question"))
        if (others := controls.elsewhere(questions, seed)) is not None:
            out["shuffled_questions"] = examples.with_text_of("question", others)
    return out


def _baselines(asked: Asked, train: Asked, f1: Any, seed: int) -> dict[str, list[str]]:
    """Answers by a rule that has not read the cells, one a prompt."""
    pool = np.array([texts[0] for texts in train.references], dtype=object)
    rng = np.random.Generator(np.random.Philox(key=seed))
    drawn = []
    for tissue in asked.tissues:
        same = np.flatnonzero((train.tissues == tissue) & (tissue != ""))
        drawn.append(str(pool[rng.choice(same if len(same) else np.arange(len(pool)))]))
    candidates = list(dict.fromkeys(pool[rng.permutation(len(pool))].tolist()))[:CANDIDATES]
    rest = [str(text) for text in pool[: 4 * CANDIDATES]]
    means = [f1([candidate] * len(rest), [[text] for text in rest]).mean() for candidate in candidates]
    central = candidates[int(np.argmax(means))]
    return {"random_training_answer": drawn, "central_training_answer": [central] * len(asked.references)}


F1 = NDArray[np.float64]


def _told(f1: F1, baselines: Mapping[str, F1], scrambles: Mapping[str, F1], seed: int) -> dict[str, Any]:
    """The model's scores [N], those of rules and those of scrambles: means and intervals."""
    below = {"bertscore": f1}
    return controls.told(below, seed) | {
        "n": len(f1),
        "baselines": {name: controls.means({"bertscore": values}) for name, values in baselines.items()},
        "scrambles": {
            name: controls.told({"bertscore": values}, seed, below=below) for name, values in scrambles.items()
        },
    }


def _at(
    rows: NDArray[np.bool_], f1: F1, baselines: Mapping[str, F1], scrambles: Mapping[str, F1]
) -> tuple[F1, dict[str, F1], dict[str, F1]]:
    """Some of the prompts of all sides."""

    def some(side: Mapping[str, F1]) -> dict[str, F1]:
        return {name: values[rows] for name, values in side.items()}

    return f1[rows], some(baselines), some(scrambles)


def _samples(asked: Asked, answers: list[str], f1: NDArray) -> list[dict[str, Any]]:
    first = np.sort(np.unique(asked.units, return_index=True)[1])[:SHOWN]
    return [
        {"unit": str(asked.units[i]), "answer": answers[i], "reference": asked.references[i][0], "f1": float(f1[i])}
        for i in first.tolist()
    ]
