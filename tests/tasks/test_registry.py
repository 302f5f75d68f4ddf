import pytest

from c2s_jax.tasks import TASKS
from c2s_jax.tasks.registry import parse_label, parse_sentence


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


def test_registry():
    assert set(TASKS) == {"cell_sentence_modelling", "cell_type_annotation", "cell_type_conditioned_generation"}
    for name, task in TASKS.items():
        assert task.name == name
        assert task.metrics
        assert task.response in ("genes", "text")
    assert TASKS["cell_type_annotation"].parse(" B cell.") == "B cell"
