"""Prompt templates: JSON files ``{"model_input": [...], "response": [...]}`` with ``{field}`` placeholders."""

import dataclasses
import importlib.util
import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from c2s_jax.tasks.registry import TASKS

OWN = Path(__file__).parent / "templates"
FIELDS = frozenset(
    "num_genes num_cells organism cell_sentence multi_cell_sentences cell_type tissue disease donor sex age "
    "perturbation dose time assay batch niche abstract".split()
)
CELL2SENTENCE_FILES = {
    "cell_type_annotation": "single_cell_cell_type_prediction_prompts.json",
    "cell_type_conditioned_generation": "single_cell_cell_type_conditional_generation_prompts.json",
}


@dataclasses.dataclass(frozen=True)
class GeneSlot:
    """Place of a cell's gene list in a text.

    ``leading`` says whether the first gene follows a space; ``trailing`` whether a period follows the last one
    directly. Both change how the neighbouring characters are cut into tokens.
    """

    leading: str
    trailing: str
    cell: int = 0


@dataclasses.dataclass(frozen=True)
class Template:
    """One phrasing of one task: what is asked and how it is answered."""

    task: str
    model_input: str
    response: str

    @property
    def fields(self) -> frozenset[str]:
        """Placeholders used."""
        return frozenset(_placeholders(self.model_input) + _placeholders(self.response))


Segment = str | GeneSlot


def load_templates(task: str, source: str = "c2s_jax") -> tuple[Template, ...]:
    """Templates of a task.

    Parameters
    ----------
    task
        Name in ``TASKS``.
    source
        ``"c2s_jax"`` (this project's wording), ``"cell2sentence"`` (the files of that package where it is installed,
        for checkpoints trained on them), or a folder with ``<task>.json`` files.

    Raises
    ------
    ValueError
        Unknown task, source without a file for it, malformed file or unknown field; names the file and entry.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    path = _template_file(task, source)
    try:
        content = json.loads(path.read_text("utf-8"))
        inputs, responses = content["model_input"], content["response"]
        if any(not isinstance(x, list) or any(not isinstance(t, str) for t in x) for x in (inputs, responses)):
            raise TypeError("not lists of strings")
    except FileNotFoundError as error:
        raise ValueError(f"no templates for task {task!r}: {path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: expected {{"model_input": [...], "response": [...]}} ({error!r})') from error
    if len(responses) not in (1, len(inputs)) or not inputs:
        raise ValueError(f"{path}: {len(responses)} responses for {len(inputs)} inputs; give one, or one for each")
    responses = list(responses) * (len(inputs) if len(responses) == 1 else 1)
    templates = tuple(Template(task, i, r) for i, r in zip(inputs, responses))
    for number, template in enumerate(templates):
        _check(template, f"{path}, entry {number}")
    return templates


def render(template: Template, values: Mapping[str, str]) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Fill a template's fields, leaving gene lists as slots.

    Returns
    -------
    Segments of the prompt and of the response. Joined, with genes in their slots, they are the example's text:
    prompt, one space, response. The space belongs to the response.
    """
    return _segments(template.model_input, values), _segments(" " + template.response, values)


def fixed_texts(templates: Sequence[Template]) -> list[str]:
    """The templates' words without placeholders, e.g. for training a tokenizer."""
    return [" ".join(text for text, *_ in string.Formatter().parse(f"{t.model_input} {t.response}")) for t in templates]


def _template_file(task: str, source: str) -> Path:
    if source == "c2s_jax":
        return OWN / f"{task}.json"
    if source == "cell2sentence":
        spec = importlib.util.find_spec("cell2sentence")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError('prompts="cell2sentence" reads that package\'s own files: pip install cell2sentence')
        if task not in CELL2SENTENCE_FILES:
            raise ValueError(
                f"cell2sentence has no templates for task {task!r}; it has {', '.join(CELL2SENTENCE_FILES)}"
            )
        return Path(spec.submodule_search_locations[0]) / "prompts" / CELL2SENTENCE_FILES[task]
    return Path(source) / f"{task}.json"


def _placeholders(text: str) -> list[str]:
    return [field for _, field, *_ in string.Formatter().parse(text) if field is not None]


def _check(template: Template, where: str) -> None:
    try:
        if unknown := template.fields - FIELDS:
            raise ValueError(f"unknown fields {sorted(unknown)}; known: {sorted(FIELDS)}")
        if template.model_input.endswith(" "):
            raise ValueError("model_input ends with a space; one is put between it and the response")
        if template.response[:1].isspace():
            raise ValueError("response begins with white space; one space is put before it")
        render(template, dict.fromkeys(FIELDS, "x"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _segments(text: str, values: Mapping[str, str]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    trailing_of_last: int | None = None
    buffer = ""
    for literal, field, *_ in string.Formatter().parse(text):
        if trailing_of_last is not None:
            literal = _close_slot(segments, trailing_of_last, literal, field)
            trailing_of_last = None
        buffer += literal
        if field == "cell_sentence":
            leading = "space" if buffer.endswith(" ") else "bare"
            if leading == "bare" and buffer and not buffer.endswith("\n"):
                raise ValueError("{cell_sentence} must start the text or follow a space or a line break")
            if buffer.endswith("  "):
                raise ValueError("{cell_sentence} follows more than one space")
            segments += [buffer.removesuffix(" "), GeneSlot(leading, "plain")]
            buffer, trailing_of_last = "", len(segments) - 1
        elif field is not None:
            if field not in values:
                raise ValueError(f"field {{{field}}} has no value here")
            buffer += values[field]
    return (*segments, buffer) if buffer else tuple(segments)


def _close_slot(segments: list[Segment], index: int, literal: str, field: str | None) -> str:
    """Give a period that touches the gene list to its slot; refuse other characters that would."""
    slot = segments[index]
    assert isinstance(slot, GeneSlot)
    if literal.startswith("."):
        segments[index] = dataclasses.replace(slot, trailing="period")
        literal = literal[1:]
    after = literal[:1] or (f"{{{field}}}" if field is not None else "\n")
    if after not in " \n":
        raise ValueError(f"{{cell_sentence}} is followed by {after!r}; use a space, a line break or a period")
    return literal
