"""Texts that the model writes about held-out cells: captions, abstracts, answers to questions (BERTScore)."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.data import MixtureTask, PromptStream
from c2s_jax.data.contexts import MissingData
from c2s_jax.data.prompts import Prompts
from c2s_jax.evaluation import controls
from c2s_jax.evaluation.context import Context
from c2s_jax.generation import Sampling
from c2s_jax.metrics.bertscore import TokenEncoder
from c2s_jax.tasks import TASKS

TASK_OF = {"caption": "cluster_captioning", "abstract": "abstract_generation", "qa": "question_answering"}
TRAINING_ANSWERS = 256  # that baselines choose from
CANDIDATES = 16  # of them, for the most central
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Asked:
    """N prompts of a split with what the data say.

    Attributes
    ----------
    prompts
        As the stream of training writes them.
    references
        All texts that answer a prompt: the captions of its cluster, the abstracts of its data set, or its one answer.
    units
        What a prompt is about, e.g. "dataset · cluster"; prompts of one unit share their references.
    """

    prompts: Prompts
    references: list[list[str]]
    units: NDArray[np.str_]
    tissues: NDArray[np.str_]


def text_metrics(
    context: Context, split: str, suite: str, *, encoder: TokenEncoder, layer: int | None, n: int, seed: int = 0
) -> dict[str, Any] | None:
    """BERTScore F1 of greedy answers, the best of several references counting, with a bootstrap interval.

    Beside the model: a training answer drawn at random (of the same tissue where the prompt's cells have one), the
    training answer nearest to all others in the mean, and, where a prompt has several references, one of them against
    the rest. Scramble: the model's answers to prompts about something else. Prompts about what training has seen
    (``in_distribution``: the data set, for captions the cluster) and about what it has not are told apart, too.

    Parameters
    ----------
    suite
        A key of ``TASK_OF``.
    layer
        Of the encoder; None for the last.
    n
        Prompts to ask; drawn by ``seed``.

    Returns
    -------
    dict or None
        None where the split has no such texts.
    """
    asked, train = (asked_of(context, part, suite, count, seed) for part, count in ((split, n), ("train", None)))
    if asked is None:
        return None
    task = TASKS[TASK_OF[suite]]
    longest = max(len(r) for r in asked.prompts.references + (train.prompts.references if train else []))
    samples = context.answer(asked.prompts.tokens, what=suite, max_new_tokens=longest + 2, sampling=Sampling(0.0))
    answers = [task.parse(text) for text in samples.texts(context.formatter.tokenizer.decode)]

    def f1(texts: list[str], references: list[list[str]]) -> NDArray[np.float64]:
        return metrics.bertscore(texts, references, encoder, layer=layer).f1

    scored = metrics.bertscore(answers, asked.references, encoder, layer=layer)
    interval = metrics.bootstrap(np.mean, scored.f1, seed=seed)
    baselines = {
        name: {"bertscore": float(f1(texts, asked.references).mean())}
        for name, texts in (_baselines(asked, train, f1, seed) if train else {}).items()
    }
    others = controls.elsewhere(asked.units, seed)
    scrambles = {}
    if others is not None:
        swapped = [answers[i] for i in others]
        scrambles["shuffled_prompts"] = {"bertscore": float(f1(swapped, asked.references).mean())}
    several = [i for i, texts in enumerate(asked.references) if len(texts) > 1]
    references = {}
    if several:
        left_out = f1([asked.references[i][0] for i in several], [asked.references[i][1:] for i in several])
        references["another_reference"] = {"bertscore": float(left_out.mean())}
    return {
        "bertscore": scored.mean,
        "precision": float(scored.precision.mean()),
        "recall": float(scored.recall.mean()),
        "bertscore_ci": [interval.low, interval.high],
        "configuration": scored.configuration,
        "n": len(answers),
        "exact": float(np.mean([a in refs for a, refs in zip(answers, asked.references)])),
        "by_distribution": _by_distribution(scored.f1, asked.units, train),
        "baselines": baselines,
        "references": references,
        "scrambles": scrambles,
        "samples": _samples(asked, answers, scored.f1),
    }


def asked_of(context: Context, split: str, suite: str, n: int | None, seed: int) -> Asked | None:
    """Prompts of a suite; None where the split has no data for them."""
    corpus = context.corpus
    if split not in corpus.splits:
        return None
    task = TASK_OF[suite]
    settings = MixtureTask(task, min_genes=context.max_genes, max_genes=context.max_genes)
    try:
        stream = PromptStream(corpus, split, [settings], context.formatter, seq_len=context.seq_len, seed=seed)
    except MissingData:
        return None
    prompts = stream.take(0, n or TRAINING_ANSWERS)
    cells, decode = corpus.cells(split), context.formatter.tokenizer.decode
    own = [TASKS[task].parse(decode(tokens.tolist())) for tokens in prompts.references]
    texts, units = [], []
    columns = {d["caption_field"]: cells.fields(d["caption_field"]) for d in corpus.datasets if d.get("captions")}
    for answer, cell in zip(own, prompts.cells):
        entry = corpus.datasets[cells.dataset_ids[cell]]
        unit, more = entry["name"], []
        if suite == "abstract":
            more = entry.get("abstracts", [])
        elif suite == "caption":
            value = str(columns[entry["caption_field"]][cell])
            unit, more = f"{unit} · {value}", entry["captions"][value]
        texts.append([answer, *(t for t in map(TASKS[task].parse, more) if t and t != answer)])
        units.append(unit)
    return Asked(prompts, texts, np.array(units, np.str_), cells.fields("tissue")[prompts.cells])


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


def _by_distribution(f1: NDArray, units: NDArray[np.str_], train: Asked | None) -> dict[str, Any]:
    seen = np.isin(units, train.units) if train else np.zeros(len(units), bool)
    sides = {"in_distribution": seen, "out_of_distribution": ~seen}
    return {name: {"bertscore": float(f1[at].mean()), "n": int(at.sum())} for name, at in sides.items() if at.any()}


def _samples(asked: Asked, answers: list[str], f1: NDArray) -> list[dict[str, Any]]:
    first = np.sort(np.unique(asked.units, return_index=True)[1])[:SHOWN]
    return [
        {"unit": str(asked.units[i]), "answer": answers[i], "reference": asked.references[i][0], "f1": float(f1[i])}
        for i in first.tolist()
    ]
