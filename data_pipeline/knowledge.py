"""What a corpus holds beside cells: questions, gene sets and interactions between genes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from c2s_jax.cells.ranking import hash_strings
from c2s_jax.data import corpus_format as fmt


class GeneSetLike(Protocol):
    """A named set of genes, as symbols in any case."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def genes(self) -> Sequence[str]: ...


class InteractionLike(Protocol):
    """Two genes, or complexes, that interact; symbols in any case."""

    @property
    def source(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def a(self) -> Sequence[str]: ...
    @property
    def b(self) -> Sequence[str]: ...


Lines = list[dict[str, Any]]


def gene_set_lines(
    gene_sets: Iterable[GeneSetLike], genes: Mapping[str, int], shares: Sequence[float], seed: int
) -> tuple[Lines, list[str]]:
    """Lines of ``gene_sets.jsonl``, and what was left out, in sentences.

    Genes the corpus does not have are left out, and so are sets of which fewer than `MIN_SET_GENES` remain. A set's
    split depends on its name alone.
    """
    lines: Lines = []
    given = dropped = absent = 0
    for entry in gene_sets:
        given += 1
        known, unknown = _known(entry.genes, genes)
        absent += unknown
        if len(known) < fmt.MIN_SET_GENES:
            dropped += 1
            continue
        line = {"name": entry.name, "description": entry.description, "source": entry.source, "genes": known}
        lines.append(line)
    for line, split in zip(lines, keyed_splits([x["name"] for x in lines], shares, seed, "gene set"), strict=True):
        line["split"] = split
    if not given:
        return [], []
    kept = f"{given - dropped} of {given} gene sets have {fmt.MIN_SET_GENES} genes of the corpus or more and are kept"
    return lines, [f"{kept}; {absent} names of genes in the sets given are not in the corpus"]


def interaction_lines(interactions: Iterable[InteractionLike], genes: Mapping[str, int]) -> tuple[Lines, list[str]]:
    """Lines of ``interactions.jsonl``: those whose genes are all in the corpus; and how many were left out."""
    lines: Lines = []
    given = 0
    for entry in interactions:
        given += 1
        (a, lost_a), (b, lost_b) = _known(entry.a, genes), _known(entry.b, genes)
        if a and b and not lost_a + lost_b:
            lines.append({"source": entry.source, "kind": entry.kind, "a": a, "b": b})
    report = [f"{len(lines)} of {given} interactions have all their genes in the corpus and are kept"] if given else []
    return lines, report


def question_lines(
    questions: Sequence[Sequence[tuple[str, str]]], shares: Sequence[float], seed: int, splits: Mapping[int, str]
) -> Lines:
    """Lines of ``questions.jsonl``.

    Parameters
    ----------
    questions : sequence of (question, answer), one sequence a data set
    shares : sequence of float
        Of the splits.
    seed : int
    splits : dict of int to str
        Split of the data sets whose cells are all in one; their questions are in the same. Elsewhere a
        question's split depends on its words, so that the same question is never in two.
    """
    lines: Lines = [
        {"dataset": number, "question": question, "answer": answer}
        for number, pairs in enumerate(questions)
        for question, answer in pairs
    ]
    drawn = keyed_splits([line["question"] for line in lines], shares, seed, "question")
    return [line | {"split": splits.get(line["dataset"], split)} for line, split in zip(lines, drawn, strict=True)]


def keyed_splits(texts: Sequence[str], shares: Sequence[float], seed: int, domain: str) -> list[str]:
    """Split of each text, drawn by its keyed hash."""
    uniform = hash_strings([text.casefold() for text in texts], seed=seed, domain=domain) / 2.0**64
    ends = np.cumsum(np.asarray(shares, dtype=np.float64))
    splits = np.searchsorted(ends / ends[-1], uniform, side="right")
    return [fmt.SPLITS[min(split, len(fmt.SPLITS) - 1)] for split in splits.tolist()]


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line; no file where there are none."""
    if lines:
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")


def _known(symbols: Iterable[str], genes: Mapping[str, int]) -> tuple[list[int], int]:
    """Ids of the symbols that are in the corpus, each once, in their order; number of the others."""
    names = dict.fromkeys(str(symbol).upper() for symbol in symbols)
    ids = [genes[name] for name in names if name in genes]
    return ids, len(names) - len(ids)
