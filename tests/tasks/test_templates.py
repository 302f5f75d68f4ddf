import json
import sys
from pathlib import Path

import pytest

from c2s_jax.tasks import TASKS, GeneSlot, Template, fixed_texts, load_templates, render
from c2s_jax.tasks.rendering import FIELDS, GENE_LISTS, MULTI_CELL, TEXT_FIELDS
from c2s_jax.tasks.templates import CELL2SENTENCE_FILES

VALUES = {name: f"<{name}>" for name in TEXT_FIELDS}
SENTENCES = {name: f"GENES-OF-{name.upper()}" for name in GENE_LISTS}
CELLS = ("CD3D NKG7", "LYZ", "MS4A1 CD79A")
SEVERAL = "Cell 1:\nCD3D NKG7.\nCell 2:\nLYZ.\nCell 3:\nMS4A1 CD79A."
SHIPPED = [(task, number) for task in TASKS for number in range(len(load_templates(task)))]


def written_out(segments) -> str:
    """The text that segments stand for."""
    text = ""
    for s in segments:
        if isinstance(s, GeneSlot):
            genes = CELLS[s.cell] if s.name == MULTI_CELL else SENTENCES[s.name]
            text += " " * (s.leading == "space") + genes + "." * (s.trailing == "period")
        else:
            text += s
    return text


@pytest.fixture
def source(tmp_path):
    """Function that writes a template file for annotation and returns its folder."""

    def write(content) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "cell_type_annotation.json").write_text(text)
        return str(tmp_path)

    return write


@pytest.mark.parametrize(("task", "number"), SHIPPED)
def test_shipped_template_renders_to_its_text(task, number):
    template = load_templates(task)[number]
    prompt, response = render(template, VALUES, cells=3)
    full = f"{template.model_input} {template.response}".format(**{**VALUES, **SENTENCES, MULTI_CELL: SEVERAL})
    assert written_out(prompt) + written_out(response) == full
    assert written_out(response).startswith(" ")
    assert written_out(response).endswith(".")


@pytest.mark.parametrize("task", list(TASKS))
def test_shipped_templates_fit_their_task(task):
    templates = load_templates(task)
    assert len({t.model_input for t in templates}) == len(templates) >= 10
    lists = {*GENE_LISTS, MULTI_CELL}
    for template in templates:
        assert not template.released
        answer = {f for f in FIELDS if f"{{{f}}}" in template.response}
        assert bool(answer & lists) == (TASKS[task].response == "genes")
        several = MULTI_CELL in template.fields
        assert several == (TASKS[task].cells[1] > 1 or TASKS[task].context in ("same_niche",))
    # Some need nothing but what the task needs, for corpora that know no more.
    plain = [t for t in templates if t.fields - lists <= {*TASKS[task].fields, "answer"}]
    assert len(plain) >= 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{cell_sentence}", ("", GeneSlot("bare", "plain"))),
        ("Genes: {cell_sentence}", ("Genes:", GeneSlot("space", "plain"))),
        ("Genes: {cell_sentence}.", ("Genes:", GeneSlot("space", "period"))),
        ("Genes:\n{cell_sentence}.\nType:", ("Genes:\n", GeneSlot("bare", "period"), "\nType:")),
        ("Genes: {cell_sentence} Type:", ("Genes:", GeneSlot("space", "plain"), " Type:")),
        ("A {organism}: {cell_sentence}. It", ("A <organism>:", GeneSlot("space", "period"), " It")),
        (
            "A: {cell_sentence}.\nB:\n{other_cell_sentence}. C",
            (
                "A:",
                GeneSlot("space", "period"),
                "\nB:\n",
                GeneSlot("bare", "period", name="other_cell_sentence"),
                " C",
            ),
        ),
    ],
)
def test_slot_knows_its_neighbours(text, expected):
    prompt, _ = render(Template("cell_type_annotation", text, "{cell_type}."), VALUES)
    assert prompt == expected
    assert written_out(prompt) == text.format(**VALUES, **SENTENCES)


@pytest.mark.parametrize(
    ("text", "cells", "expected"),
    [
        ("{multi_cell_sentences}", 1, "Cell 1:\nCD3D NKG7."),
        ("{multi_cell_sentences}", 3, SEVERAL),
        ("{multi_cell_sentences}.", 3, SEVERAL),
        ("Q:\n{multi_cell_sentences}\nA:", 3, f"Q:\n{SEVERAL}\nA:"),
        ("Q: {multi_cell_sentences}. A:", 2, "Q: Cell 1:\nCD3D NKG7.\nCell 2:\nLYZ. A:"),
    ],
)
def test_several_cells(text, cells, expected):
    prompt, _ = render(Template("tissue_annotation", text, "{tissue}."), VALUES, cells)
    assert written_out(prompt) == expected
    slots = [s for s in prompt if isinstance(s, GeneSlot)]
    assert slots == [GeneSlot("bare", "period", i, MULTI_CELL) for i in range(cells)]


def test_prose_keeps_one_period():
    template = Template("abstract_generation", "On {abstract}\nOf {cell_type}. It:", "{abstract}.")
    prompt, response = render(template, {"abstract": " It was seen. ", "cell_type": "sp."})
    assert (prompt, response) == (("On It was seen.\nOf sp.. It:",), (" It was seen.",))


def test_missing_value_names_the_field():
    template = Template("cell_type_annotation", "Genes: {cell_sentence}", "{cell_type}.")
    with pytest.raises(ValueError, match=r"field \{cell_type\} has no value"):
        render(template, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected .*model_input"),
        ("[1, 2]", "expected .*model_input"),
        ({"model_input": ["a"]}, "expected .*model_input.*'response'"),
        ({"model_input": "ab", "response": ["x."]}, "not lists of strings"),
        ({"model_input": ["a", 3], "response": ["x."]}, "not lists of strings"),
        ({"model_input": [], "response": ["x."]}, "1 responses for 0 inputs"),
        ({"model_input": ["a", "b", "c"], "response": ["x.", "y."]}, "2 responses for 3 inputs"),
        ({"model_input": ["a", "b {celltype}"], "response": ["x."]}, r"entry 1: unknown fields \['celltype'\]"),
        ({"model_input": ["a"], "response": ["{cell_type."]}, "entry 0: "),
        ({"model_input": ["a {}"], "response": ["x."]}, "entry 0: unknown fields"),
        ({"model_input": ["a:{cell_sentence}"], "response": ["x."]}, "entry 0: .*follow a space"),
        ({"model_input": ["a  {cell_sentence}"], "response": ["x."]}, "entry 0: .*more than one space"),
        ({"model_input": ["a {cell_sentence}, b"], "response": ["x."]}, "entry 0: .*followed by ','"),
        ({"model_input": ["a {cell_sentence}{cell_type}"], "response": ["x."]}, r"followed by '\{cell_type\}'"),
        ({"model_input": ["a {cell_sentence}.{cell_type}"], "response": ["x."]}, r"followed by '\{cell_type\}'"),
        (
            {"model_input": ["a:{bulk_sentence}"], "response": ["x."]},
            r"entry 0: \{bulk_sentence\} must.*follow a space",
        ),
        ({"model_input": ["a:{multi_cell_sentences}"], "response": ["x."]}, "entry 0: .*follow a space"),
        (
            {"model_input": ["a {multi_cell_sentences}b"], "response": ["x."]},
            r"\{multi_cell_sentences\} is followed by",
        ),
        ({"model_input": ["a "], "response": ["x."]}, "entry 0: model_input ends with a space"),
        ({"model_input": ["a"], "response": [" x."]}, "entry 0: response begins with white space"),
        ({"model_input": ["a"], "response": ["\n{cell_type}."]}, "entry 0: response begins with white space"),
    ],
)
def test_bad_file_is_named(source, content, message):
    folder = source(content)
    with pytest.raises(ValueError, match=f"(?s)cell_type_annotation.json.*{message}"):
        load_templates("cell_type_annotation", folder)


def test_folder_as_source(source):
    folder = source({"model_input": ["q {cell_sentence}.", "r {cell_sentence}."], "response": ["{cell_type}."]})
    templates = load_templates("cell_type_annotation", folder)
    assert [t.model_input for t in templates] == ["q {cell_sentence}.", "r {cell_sentence}."]
    assert {t.response for t in templates} == {"{cell_type}."}
    with pytest.raises(ValueError, match=r"no templates.*cell_sentence_modelling\.json does not exist"):
        load_templates("cell_sentence_modelling", folder)


def test_one_response_for_each_input(source):
    folder = source({"model_input": ["a", "b"], "response": ["x.", "y."]})
    assert [(t.model_input, t.response) for t in load_templates("cell_type_annotation", folder)] == [
        ("a", "x."),
        ("b", "y."),
    ]


def test_unknown_task():
    with pytest.raises(ValueError, match=r"unknown task 'annotation'; known: .*cell_type_annotation"):
        load_templates("annotation")


class TestCell2Sentence:
    SINGLE = "single_cell_cell_type_prediction_prompts.json"
    MULTI = "multi_cell_tissue_prediction_prompts.json"

    @pytest.fixture
    def installed(self, tmp_path, monkeypatch) -> Path:
        """A package of that name, with two files of templates."""
        prompts = tmp_path / "cell2sentence" / "prompts"
        prompts.mkdir(parents=True)
        (tmp_path / "cell2sentence" / "__init__.py").write_text("raise ImportError('must not be imported')")
        content = {"model_input": ["{num_genes} genes: {cell_sentence}.\nType:"], "response": ["{cell_type}."]}
        (prompts / self.SINGLE).write_text(json.dumps(content))
        content = {"model_input": ["{num_cells} cells:\n{multi_cell_sentences}.\nTissue:"], "response": ["{tissue}."]}
        (prompts / self.MULTI).write_text(json.dumps(content))
        monkeypatch.delitem(sys.modules, "cell2sentence", raising=False)  # another test may use the real one
        monkeypatch.syspath_prepend(str(tmp_path))
        return prompts

    def test_absent(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match="pip install cell2sentence"):
            load_templates("cell_type_annotation", "cell2sentence")

    def test_files_are_read_without_importing_it(self, installed):
        (template,) = load_templates("cell_type_annotation", "cell2sentence")
        assert template.model_input.startswith("{num_genes}")
        assert "cell2sentence" not in sys.modules

    @pytest.mark.parametrize("from_folder", [False, True])
    def test_a_line_break_follows_the_last_cell(self, installed, from_folder):
        """As in the released format, where the field ends with a line break and the template goes on with a period."""
        (template,) = load_templates("tissue_annotation", str(installed) if from_folder else "cell2sentence")
        prompt, response = render(template, VALUES, cells=3)
        assert written_out(prompt) == f"<num_cells> cells:\n{SEVERAL}\n.\nTissue:"
        assert written_out(response) == " <tissue>."

    def test_own_files_of_a_folder_come_first(self, installed):
        content = {"model_input": ["{multi_cell_sentences}"], "response": ["{tissue}."]}
        (installed / "tissue_annotation.json").write_text(json.dumps(content))
        (template,) = load_templates("tissue_annotation", str(installed))
        assert (template.model_input, template.released) == ("{multi_cell_sentences}", False)

    def test_task_it_lacks(self, installed):
        with pytest.raises(ValueError, match="no templates for task 'cell_sentence_modelling'; it has cell_type_ann"):
            load_templates("cell_sentence_modelling", "cell2sentence")

    def test_every_file_belongs_to_a_task(self):
        assert set(CELL2SENTENCE_FILES) <= set(TASKS)
        assert len(set(CELL2SENTENCE_FILES.values())) == 5


def test_fixed_texts_have_no_placeholders():
    texts = fixed_texts([Template("cell_type_annotation", "A {organism} cell: {cell_sentence}.", "{cell_type}.")])
    assert [t.split() for t in texts] == [["A", "cell:", ".", "."]]
