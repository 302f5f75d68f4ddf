import pytest

from c2s_jax.tasks import TASKS, load_templates


def test_registry():
    assert len(TASKS) == 24
    for name, task in TASKS.items():
        assert task.name == name
        assert task.metrics
        assert 1 <= task.cells[0] <= task.cells[1]


@pytest.mark.parametrize("task", TASKS)
def test_fields_stand_in_every_template(task):
    """What an example cannot be without, its templates use (the niche of a yes-or-no question excepted)."""
    needed = set(TASKS[task].fields) - ({"niche"} if task == "same_niche" else set())
    assert all(needed <= template.fields for template in load_templates(task))


@pytest.mark.parametrize(
    ("task", "answer", "parsed"),
    [
        ("cell_type_annotation", " B cell.", "B cell"),
        ("cell_sentence_modelling", " CD3D NKG7.", "CD3D NKG7"),
        ("tissue_conditioned_generation", " Cell 1:\nA B.\nCell 2:\nC.", ["A B", "C"]),
        ("sample_cell_type_annotation", " B cell, T cell.", ["B cell", "T cell"]),
        ("same_niche", " Yes.", "Yes"),
        ("abstract_generation", " One.\nTwo.", "One.\nTwo"),
    ],
)
def test_each_answer_has_its_parser(task, answer, parsed):
    assert TASKS[task].parse(answer) == parsed
