"""Prompt templates: JSON files ``{"model_input": [...], "response": [...]}`` with ``{field}`` placeholders."""

import importlib.util
import json
import string
from collections.abc import Sequence
from pathlib import Path

from c2s_jax.tasks.registry import TASKS
from c2s_jax.tasks.rendering import FIELDS, Template, render

OWN = Path(__file__).parent / "templates"
CELL2SENTENCE_FILES = {
    "cell_type_annotation": "single_cell_cell_type_prediction_prompts.json",
    "cell_type_conditioned_generation": "single_cell_cell_type_conditional_generation_prompts.json",
    "tissue_annotation": "multi_cell_tissue_prediction_prompts.json",
    "tissue_conditioned_generation": "multi_cell_tissue_conditional_generation.json",
    "abstract_generation": "multi_cell_natural_lang_interpretation_prompts.json",
}


def load_templates(task: str, source: str = "c2s_jax") -> tuple[Template, ...]:
    """Templates of a task.

    Parameters
    ----------
    task
        Name in ``TASKS``.
    source
        ``"c2s_jax"`` (this project's wording), ``"cell2sentence"`` (the files of that package where it is installed,
        for checkpoints trained on them), or a folder with ``<task>.json`` files or with copies of that package's.

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
    released = path.name in CELL2SENTENCE_FILES.values()
    templates = tuple(Template(task, *texts, released) for texts in zip(inputs, responses))
    for number, template in enumerate(templates):
        _check(template, f"{path}, entry {number}")
    return templates


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
    own = Path(source) / f"{task}.json"
    released = Path(source) / CELL2SENTENCE_FILES.get(task, own.name)
    return released if released.is_file() and not own.is_file() else own


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
