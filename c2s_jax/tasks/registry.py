"""The tasks. A new one is a row here, a file of templates beside, and, where needed, a parser and a context."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from c2s_jax.tasks.parsing import (
    parse_label,
    parse_labels,
    parse_sentence,
    parse_sentences,
    parse_text,
    parse_yes_no,
)

ContextName = Literal[
    "cell",
    "sample",
    "neighbourhood",
    "neighbour",
    "same_neighbourhood",
    "same_niche",
    "cluster",
    "question",
    "gene_set",
    "pair",
    "bulk",
]


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of question.

    Attributes
    ----------
    name
        Key in configs and name of the template file.
    context
        How cells and texts of an example are chosen, see ``c2s_jax.data.contexts``.
    fields
        Text fields without which there is no example. What else a template uses may be missing: another is taken.
    response
        Whether the answer holds gene lists or is text.
    parse
        Generated text -> answer: a label, a text, a cell sentence, or a list of labels or sentences.
    metrics
        Names of the metrics that fit it.
    cells
        Fewest and most cells an example, where the context leaves a choice; settings may change them.
    """

    name: str
    context: ContextName
    fields: tuple[str, ...]
    response: Literal["genes", "text"]
    parse: Callable[[str], Any]
    metrics: tuple[str, ...]
    cells: tuple[int, int] = (1, 1)


LABEL = ("accuracy", "macro_f1")
PROSE = ("bertscore",)
OVERLAP = ("gene_overlap",)
GENERATED = ("valid", "unique", "gene_overlap", "knn_accuracy", "scfid")
PERTURBED = ("gene_overlap", "mmd", "wasserstein", "scfid")
SAMPLE = (5, 20)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        # One cell.
        Task("cell_sentence_modelling", "cell", (), "genes", parse_sentence, OVERLAP),
        Task("cell_type_annotation", "cell", ("cell_type",), "text", parse_label, LABEL),
        Task("cell_type_conditioned_generation", "cell", ("cell_type",), "genes", parse_sentence, GENERATED),
        # Several cells of one donor and tissue.
        Task("multi_cell_sentence_modelling", "sample", (), "genes", parse_sentences, OVERLAP, SAMPLE),
        Task("tissue_annotation", "sample", ("tissue",), "text", parse_label, LABEL, SAMPLE),
        Task("sample_cell_type_annotation", "sample", ("cell_types",), "text", parse_labels, LABEL, SAMPLE),
        Task("tissue_conditioned_generation", "sample", ("tissue",), "genes", parse_sentences, OVERLAP, SAMPLE),
        Task("cell_types_conditioned_generation", "sample", ("cell_types",), "genes", parse_sentences, OVERLAP, SAMPLE),
        Task("abstract_conditioned_generation", "sample", ("abstract",), "genes", parse_sentences, OVERLAP, SAMPLE),
        Task("abstract_generation", "sample", ("abstract",), "text", parse_text, PROSE, SAMPLE),
        # Sets of genes.
        Task("gene_set_naming", "gene_set", ("gene_set_name",), "text", parse_text, PROSE),
        Task("gene_set_enumeration", "gene_set", ("gene_set_name",), "genes", parse_sentence, OVERLAP),
        # Cells in space.
        Task("niche_annotation", "neighbourhood", ("niche",), "text", parse_label, LABEL, (2, 20)),
        Task("neighbour_generation", "neighbour", (), "genes", parse_sentence, OVERLAP),
        Task("same_neighbourhood", "same_neighbourhood", ("answer",), "text", parse_yes_no, LABEL, (2, 2)),
        Task("same_niche", "same_niche", ("niche",), "text", parse_yes_no, LABEL),
        # Texts about cells.
        Task("cluster_captioning", "cluster", ("caption",), "text", parse_text, PROSE, (2, 2)),
        Task("question_answering", "question", ("question", "answer"), "text", parse_text, PROSE, SAMPLE),
        # Perturbations.
        Task("perturbed_cell_generation", "cell", ("cell_type", "perturbation"), "genes", parse_sentence, PERTURBED),
        Task("perturbation_annotation", "cell", ("cell_type", "perturbation"), "text", parse_text, LABEL),
        Task("perturbation_response", "pair", ("perturbation",), "genes", parse_sentence, PERTURBED),
        Task("perturbation_naming", "pair", ("perturbation",), "text", parse_label, LABEL),
        # Single cells and the bulk they belong to.
        Task("bulk_generation", "bulk", (), "genes", parse_sentence, OVERLAP, (5, 10)),
        Task("cell_generation_from_bulk", "bulk", ("cell_type",), "genes", parse_sentence, OVERLAP),
    )
}
