"""The tasks. A new one is a row here, a file of templates beside, and, where needed, a parser."""

import dataclasses
from collections.abc import Callable
from typing import Literal


def parse_label(answer: str) -> str:
    """A label out of a generated answer: first line, without the closing period and surrounding space."""
    return answer.strip().split("\n")[0].strip().removesuffix(".").strip()


def parse_sentence(answer: str) -> str:
    """The words of a generated cell sentence; unknown or repeated genes are left for ``cells.repair_sentence``."""
    return parse_label(answer)


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of question.

    Attributes
    ----------
    name
        Key in configs and name of the template file.
    fields
        Obs fields that a cell must have (not empty) to serve as an example.
    response
        Whether the answer is a gene list or text.
    parse
        Generated text -> answer.
    metrics
        Names of the metrics that ``c2s_jax.evaluation`` reports for it.
    """

    name: str
    fields: tuple[str, ...]
    response: Literal["genes", "text"]
    parse: Callable[[str], str]
    metrics: tuple[str, ...]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("cell_sentence_modelling", (), "genes", parse_sentence, ("gene_overlap",)),
        Task("cell_type_annotation", ("cell_type",), "text", parse_label, ("accuracy", "macro_f1")),
        Task(
            "cell_type_conditioned_generation",
            ("cell_type",),
            "genes",
            parse_sentence,
            ("valid", "unique", "gene_overlap", "knn_accuracy", "scfid"),
        ),
    )
}
