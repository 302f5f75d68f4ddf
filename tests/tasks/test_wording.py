"""The wording of the shipped templates: every phrasing of every task, checked as text and filled in."""

import itertools
import json
import re
import string

import pytest

from c2s_jax.tasks.templates import OWN

GENE_LISTS = {"cell_sentence", "other_cell_sentence", "bulk_sentence", "gene_set", "multi_cell_sentences"}
TEXTS = set(
    "num_genes num_cells organism cell_type cell_types tissue disease donor sex age perturbation dose time assay batch "
    "niche abstract caption question answer gene_set_name interactions".split()
)
# What every phrasing of a task holds: fields of the question, fields of the answer.
ASKED = {
    "cell_sentence_modelling": ("", "cell_sentence"),
    "cell_type_annotation": ("cell_sentence", "cell_type"),
    "cell_type_conditioned_generation": ("cell_type", "cell_sentence"),
    "multi_cell_sentence_modelling": ("", "multi_cell_sentences"),
    "tissue_annotation": ("multi_cell_sentences", "tissue"),
    "sample_cell_type_annotation": ("multi_cell_sentences", "cell_types"),
    "tissue_conditioned_generation": ("tissue", "multi_cell_sentences"),
    "cell_types_conditioned_generation": ("cell_types", "multi_cell_sentences"),
    "abstract_conditioned_generation": ("abstract", "multi_cell_sentences"),
    "abstract_generation": ("multi_cell_sentences", "abstract"),
    "gene_set_naming": ("gene_set", "gene_set_name"),
    "gene_set_enumeration": ("gene_set_name", "gene_set"),
    "niche_annotation": ("multi_cell_sentences", "niche"),
    "neighbour_generation": ("cell_sentence", "other_cell_sentence"),
    "same_neighbourhood": ("multi_cell_sentences", "answer"),
    "same_niche": ("multi_cell_sentences", "answer"),
    "cluster_captioning": ("multi_cell_sentences", "caption"),
    "question_answering": ("multi_cell_sentences question", "answer"),
    "perturbed_cell_generation": ("cell_type perturbation", "cell_sentence"),
    "perturbation_annotation": ("cell_sentence", "cell_type perturbation"),
    "perturbation_response": ("cell_sentence perturbation", "other_cell_sentence"),
    "perturbation_naming": ("cell_sentence other_cell_sentence", "perturbation"),
    "bulk_generation": ("multi_cell_sentences", "bulk_sentence"),
    "cell_generation_from_bulk": ("bulk_sentence cell_type", "cell_sentence"),
}
SPATIAL = ("niche_annotation", "neighbour_generation", "same_neighbourhood", "same_niche")
SAMPLES = {
    "cell_sentence": "CD3D NKG7",
    "other_cell_sentence": "LYZ CST3",
    "bulk_sentence": "B2M MALAT1",
    "gene_set": "STAT1 IRF1",
    "multi_cell_sentences": "Cell 1:\nCD3D NKG7.\nCell 2:\nLYZ CST3.",
    "cell_type": "CD14+ monocyte",
    "cell_types": "B cell, T cell, B cell",
    "tissue": "lung",
    "perturbation": "IFN-beta",
    "dose": "10 uM",
    "time": "6 h",
    "niche": "layer 2",
    "abstract": "We profiled lungs of ten donors",
    "caption": "Activated T cells",
    "question": "Which cells respond?",
    "answer": "Yes",
    "gene_set_name": "interferon alpha response (hallmark)",
    "interactions": "CXCL12 binds CXCR4.",
}


def entries(task: str) -> list[tuple[str, str]]:
    """(model_input, response) of every phrasing."""
    content = json.loads((OWN / f"{task}.json").read_text("utf-8"))
    inputs, responses = content["model_input"], content["response"]
    return list(zip(inputs, responses * (len(inputs) if len(responses) == 1 else 1), strict=True))


def fields(text: str) -> list[str]:
    return [field for _, field, *_ in string.Formatter().parse(text) if field is not None]


ENTRIES = [
    pytest.param(task, asked, answered, id=f"{task}-{i}")
    for task in ASKED
    for i, (asked, answered) in enumerate(entries(task))
]


def test_every_task_has_a_file_and_every_file_a_task():
    assert {path.stem for path in OWN.glob("*.json")} == set(ASKED)


@pytest.mark.parametrize("task", ASKED)
def test_enough_phrasings_for_any_data(task):
    phrasings = entries(task)
    inputs = [asked.lower().strip(" :.") for asked, _ in phrasings]
    assert len(set(inputs)) == len(inputs) >= 10
    needed = {*ASKED[task][0].split(), *ASKED[task][1].split()}
    used = [set(fields(asked + answered)) for asked, answered in phrasings]
    assert sum(u == needed for u in used) >= 4
    informed = [u for u in used if "interactions" in u]
    if task in SPATIAL:
        assert len(used) - len(informed) >= 10
        assert sum(u == needed | {"interactions"} for u in informed) >= 5
    else:
        assert not informed


@pytest.mark.parametrize(("task", "asked", "answered"), ENTRIES)
def test_fields(task, asked, answered):
    question, answer = ASKED[task]
    assert set(fields(asked + answered)) <= TEXTS | GENE_LISTS
    assert set(question.split()) <= set(fields(asked))
    assert set(answer.split()) <= set(fields(answered))
    assert len(fields(asked)) == len(set(fields(asked)))
    assert not set(fields(asked)) & set(fields(answered)), "the question gives the answer away"
    extra = set(fields(answered)) - set(answer.split())
    assert extra <= ({"time", "dose"} if task == "perturbation_annotation" else set())
    for field in extra:
        assert field in asked, f"the question does not say that it wants the {field}"


@pytest.mark.parametrize(("task", "asked", "answered"), ENTRIES)
def test_characters(task, asked, answered):
    text = f"{asked} {answered}"
    assert text.isascii()
    assert '"' not in text
    assert "'" not in text
    assert "  " not in text
    assert " \n" not in text
    assert "\n " not in text
    assert asked == asked.strip()
    assert answered == answered.strip()
    assert asked[-1] in ":?." or asked.split()[-1] in {"is", "was", "as", "called", "namely", "type"}
    assert len(re.sub(r"\{\w+\}", "", asked)) <= 100


@pytest.mark.parametrize(("task", "asked", "answered"), ENTRIES)
def test_gene_lists_stand_apart(task, asked, answered):
    for text, field in itertools.product((asked, answered), GENE_LISTS):
        alone = r"(?:^|\n)\{%s\}(?:\n|$)" if field == "multi_cell_sentences" else r"(?:^|[ \n])\{%s\}(?:[ \n.]|$)"
        assert len(re.findall(alone % field, text)) == text.count(f"{{{field}}}")


@pytest.mark.parametrize(("task", "asked", "answered"), ENTRIES)
@pytest.mark.parametrize("organism", ["human", "mouse"])
@pytest.mark.parametrize("number", ["1", "12"])
def test_filled_in(task, asked, answered, organism, number):
    values = {**SAMPLES, "organism": organism, "num_genes": number, "num_cells": number}
    prompt, response = asked.format(**values), answered.format(**values)
    assert response.endswith(".")
    for text in (prompt, response):
        assert ".." not in text
        assert not re.search(r"\b[Aa] [aeiouAEIOU]|\b[Aa]n [^aeiouAEIOU]", text)
        assert not re.search(r"[.?!] [a-z]", text.replace(". human", "").replace(". mouse", ""))
    assert not re.search(r"\{num_\w+\} \w", asked), "a number before a noun is right in the plural only"
    # Only an organism may follow an article: of other fields one does not know how they begin.
    assert set(re.findall(r"\b[Aa]n? \{(\w+)\}", asked)) <= {"organism"}
