import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_jax.tasks import load_templates
from c2s_jax.tasks.parsing import (
    parse_fields,
    parse_label,
    parse_labels,
    parse_sentence,
    parse_sentences,
    parse_text,
    parse_yes_no,
)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (" B cell.", "B cell"),
        ("B cell", "B cell"),
        (" CD14+ Monocyte. \n", "CD14+ Monocyte"),
        ("B cell.\nT cell.", "B cell"),
        (" CD4+/CD45RA+/CD25- Naive T.", "CD4+/CD45RA+/CD25- Naive T"),
        ("type 2.5.", "type 2.5"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_label(answer, label):
    assert parse_label(answer) == label


def test_sentence_keeps_its_words():
    assert parse_sentence(" CD3D  NKG7 CD3D XYZ.\nmore") == "CD3D  NKG7 CD3D XYZ"


@pytest.mark.parametrize(
    ("answer", "sentences"),
    [
        (" Cell 1:\nCD3D NKG7.\nCell 2:\nLYZ.", ["CD3D NKG7", "LYZ"]),
        ("Cell 1:\nCD3D.\nCell 2:\nLYZ.\n.", ["CD3D", "LYZ"]),  # as released checkpoints write
        ("Cell 1: CD3D Cell 2: LYZ", ["CD3D", "LYZ"]),
        ("Cell 1:\nCD3D.\nCell 2:\n", ["CD3D", ""]),  # broken off
        ("Cell 1:\nCD3D.\nCell 2:", ["CD3D", ""]),
        ("CD3D NKG7.", ["CD3D NKG7"]),
        ("CD3D.\nCell 2:\nLYZ.", ["CD3D", "LYZ"]),
        ("Cell 3:\nA.\nCell 3:\nB.", ["A", "B"]),
        ("", []),
    ],
)
def test_sentences(answer, sentences):
    assert parse_sentences(answer) == sentences


@given(st.lists(st.text(string.ascii_uppercase + "0123456789-", min_size=1).map(str.strip), min_size=1, max_size=25))
def test_sentences_come_back(genes):
    body = "\n".join(f"Cell {i}:\n{gene} {gene}." for i, gene in enumerate(genes, 1))
    assert parse_sentences(f" {body}") == [f"{gene} {gene}" for gene in genes]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (" Yes.", "Yes"),
        ("no", "No"),
        (" NO, they are not", "No"),
        ("*Yes*", "Yes"),
        ("Nothing", ""),
        ("I say yes", ""),
        ("", ""),
    ],
)
def test_yes_no(answer, found):
    assert parse_yes_no(answer) == found


def test_labels_that_hold_commas():
    known = {"CD4-positive, alpha-beta T cell", "CD4-positive", "B cell", "a, b, c", "a, b"}
    answer = " B cell, CD4-positive, alpha-beta T cell, CD4-positive, B cell, a, b, c, a, b, unknown, one."
    assert parse_labels(answer, known) == [
        "B cell",
        "CD4-positive, alpha-beta T cell",
        "CD4-positive",
        "B cell",
        "a, b, c",
        "a, b",
        "unknown",
        "one",
    ]
    assert parse_labels(" B cell, T cell.") == ["B cell", "T cell"]
    assert parse_labels("", known) == []


def test_text_keeps_its_lines():
    assert parse_text(" First. Second.\n\nThird. ") == "First. Second.\n\nThird"


class TestFields:
    RESPONSES = tuple(dict.fromkeys(t.response for t in load_templates("perturbation_annotation")))

    @pytest.mark.parametrize("response", RESPONSES)
    def test_each_shipped_answer_comes_back(self, response):
        values = {"cell_type": "T cell, CD4+", "perturbation": "IFN-beta. High", "time": "6.5 h", "dose": "1 uM"}
        found = parse_fields(f" {response.format(**values)}", self.RESPONSES)
        assert found == {name: value for name, value in values.items() if f"{{{name}}}" in response}

    def test_line_breaks_and_a_lost_period(self):
        answer = "Cell type:  B cell.\nPerturbation: control"
        assert parse_fields(answer, self.RESPONSES) == {"cell_type": "B cell", "perturbation": "control"}

    @pytest.mark.parametrize("answer", ["", "B cell", "Cell type: B cell.", "Perturbation: x. Cell type: y."])
    def test_what_fits_no_template(self, answer):
        assert parse_fields(answer, self.RESPONSES) == {}
