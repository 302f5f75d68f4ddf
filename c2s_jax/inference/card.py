"""What a model brings besides weights and tokenizer: what it knows of cells, in a ``c2s.json`` beside them."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2s_jax.cells import CellDataError, GeneVocabulary, RankExpression
from c2s_jax.data import Corpus
from c2s_jax.data.corpus_format import FIELDS
from c2s_jax.data.ragged import evenly, places

FILE = "c2s.json"
VERSION = 1
COUNTED_CELLS = 4_096  # whose genes are counted, spread over the training cells
MOST_VALUES = 2_000  # of a field that are listed; a field with more (donors of an atlas) is no closed set


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a model knows of cells.

    Attributes
    ----------
    genes
        The genes of its sentences.
    values
        Values by field that cells had in training, e.g. ``values["cell_type"]``; most frequent first.
    rank_expression
        The rank→expression line of each data set, by its name.
    tasks
        Names of the tasks it was trained on.
    n_genes
        Genes a sentence had at most.
    context
        Tokens it can read at once.
    prompts
        Source of the templates it was trained with, see ``tasks.load_templates``.
    gene_counts
        In how many sentences of (some) training cells each gene stood, one number a gene: what drafts of names are
        made of. None in cards of older versions.
    """

    genes: GeneVocabulary
    values: Mapping[str, tuple[str, ...]]
    rank_expression: Mapping[str, RankExpression]
    tasks: tuple[str, ...]
    n_genes: int
    context: int
    prompts: str = "c2s_jax"
    gene_counts: tuple[int, ...] | None = None

    def expression(self, dataset: str | None = None) -> RankExpression:
        """The rank→expression line of a data set; without a name, of the one that most entries were fitted on.

        Raises
        ------
        ValueError
            If there is no such data set.
        """
        if dataset is None:
            return max(self.rank_expression.values(), key=lambda line: line.n)
        if dataset not in self.rank_expression:
            raise ValueError(f"the model knows no data set {dataset!r}; it has {', '.join(self.rank_expression)}")
        return self.rank_expression[dataset]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "version": VERSION,
            "tasks": list(self.tasks),
            "n_genes": self.n_genes,
            "context": self.context,
            "prompts": self.prompts,
            "values": {name: list(values) for name, values in self.values.items()},
            "rank_expression": {name: line.to_dict() for name, line in self.rank_expression.items()},
            "genes": list(self.genes.names),
            "gene_counts": None if self.gene_counts is None else list(self.gene_counts),
        }

    @staticmethod
    def of_corpus(corpus: Corpus, *, tasks: tuple[str, ...], n_genes: int, context: int, prompts: str) -> "ModelCard":
        """Card of a model trained on a corpus."""
        cells = corpus.cells("train")
        values = {}
        for name in FIELDS:
            codes, found = cells.field_codes(name)
            counts = np.bincount(codes, minlength=len(found))
            order = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i] and str(found[i]).strip()]
            if order and len(order) <= MOST_VALUES:
                values[name] = tuple(str(found[i]) for i in order)
        lines = dict(zip((d["name"] for d in corpus.datasets), corpus.rank_expressions))
        return ModelCard(corpus.genes, values, lines, tasks, n_genes, context, prompts, _gene_counts(corpus, n_genes))


def _gene_counts(corpus: Corpus, n_genes: int) -> tuple[int, ...]:
    """Genes among the first ``n_genes`` of training cells."""
    cells = corpus.cells("train")
    found = cells.take(evenly(len(cells), COUNTED_CELLS))
    rank = places(np.diff(found.indptr))
    return tuple(np.bincount(found.genes[rank < n_genes], minlength=len(corpus.genes)).tolist())


def _counts(found: list[int] | None, genes: int) -> tuple[int, ...] | None:
    if found is not None and len(found) != genes:
        raise ValueError(f"it has gene_counts of {len(found):,} genes, and {genes:,} genes")
    return None if found is None else tuple(map(int, found))


def write_card(card: ModelCard, folder: str | Path) -> None:
    """Put a card beside weights; whole or not at all."""
    path = Path(folder) / FILE
    partial = path.with_name(f"{FILE}.partial")
    partial.write_text(json.dumps(card.to_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, path)


def read_card(folder: str | Path) -> ModelCard | None:
    """The card beside weights; None where there is none, as with checkpoints that others released.

    Raises
    ------
    ValueError
        If the file is damaged or of another version; names it.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["version"] != VERSION:
            raise ValueError(f"it has version {found['version']}, this version of c2s_jax reads {VERSION}")
        return ModelCard(
            genes=GeneVocabulary(found["genes"]),
            values={name: tuple(values) for name, values in found["values"].items()},
            rank_expression={name: RankExpression(**line) for name, line in found["rank_expression"].items()},
            tasks=tuple(found["tasks"]),
            n_genes=int(found["n_genes"]),
            context=int(found["context"]),
            prompts=found["prompts"],
            gene_counts=_counts(found.get("gene_counts"), len(found["genes"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, CellDataError) as error:
        raise ValueError(f"{path} cannot be used: {error!r}. Convert the model again (c2s_jax.convert)") from error
