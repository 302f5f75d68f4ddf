import dataclasses
import json

import numpy as np
import pytest

from c2s_jax.evaluation import controls
from c2s_jax.evaluation.annotation import UNPARSED, Annotations, _vote, annotate, annotation_metrics
from c2s_jax.evaluation.context import some_of, templates_for
from c2s_jax.evaluation.generation import generate_cells
from c2s_jax.generation import Sampling
from c2s_jax.tasks import load_templates

KNOWN = {"B cell", "T cell"}


@pytest.mark.parametrize(
    ("answers", "weights", "winner", "confidence"),
    [
        (["B cell"], [0.1], "B cell", 0.1),
        (["B cell", "T cell"], [0.2, 0.3], "T cell", 0.15),
        (["B cell", "T cell", "B cell"], [0.2, 0.3, 0.2], "B cell", 0.4 / 3),
        (["nonsense", "T cell"], [0.9, 0.1], "T cell", 0.05),
        (["b cell", "T cells", ""], [0.9, 0.9, 0.6], UNPARSED, 0.3),
        (["T cell"], [0.0], "T cell", 0.0),
    ],
)
def test_vote(answers, weights, winner, confidence):
    assert _vote(np.array(answers), np.array(weights), KNOWN) == (winner, pytest.approx(confidence))


N = 140  # held-out cells, all of them labelled


def truth(context, n: int) -> list[str]:
    return context.corpus.cells("test").fields("cell_type")[some_of(np.arange(N), n)].tolist()


def told(labels: list[str], predicted: list[str], confidence: np.ndarray) -> Annotations:
    cells = some_of(np.arange(N), len(labels))
    return Annotations(np.array(labels), np.array(predicted), confidence, np.array(predicted)[:, None], cells)


def test_right_answers_score_one(context, telling):
    labels = truth(context, N)
    asked = telling([f" {label}." for label in labels])
    found = annotate(asked, "test")
    assert found.true.tolist() == found.predicted.tolist() == labels
    metrics = annotation_metrics(asked, "test", found, found)
    assert (metrics["accuracy"], metrics["macro_f1"], metrics["unparsed"], metrics["n"]) == (1.0, 1.0, 0.0, 140)
    assert asked.sampler.sampling.temperature == 0
    counts = np.unique(context.corpus.cells("train").fields("cell_type"), return_counts=True)
    majority = counts[0][counts[1].argmax()]
    assert metrics["baselines"]["majority"]["accuracy"] == pytest.approx(np.mean(np.array(labels) == majority))
    assert 0.75 < metrics["baselines"]["logistic_regression"]["accuracy"] < 0.92


def test_prompts_hold_the_cell_but_not_its_label(context, telling):
    asked = telling([" x."] * 3, max_genes=30)
    annotate(asked, "test", max_cells=3)
    template, cells, names = (
        load_templates("cell_type_annotation")[0],
        context.corpus.cells("test"),
        context.corpus.genes.names,
    )
    for i, prompt in zip(some_of(np.arange(N), 3).tolist(), asked.sampler.prompts):
        sentence = " ".join(names[g] for g in cells[i].genes[:30])
        assert prompt == template.model_input.format(organism="human", cell_sentence=sentence)


def test_prompts_with_genes_in_random_order(context, telling):
    def words(**changes) -> list[list[str]]:
        asked = telling([" x."] * 3, max_genes=30)
        annotate(asked, "test", max_cells=3, **changes)
        return [prompt.replace(".", " ").split() for prompt in asked.sampler.prompts]

    real, shuffled = words(), words(shuffle_genes=5)
    assert [sorted(w) for w in shuffled] == [sorted(w) for w in real]
    assert all(a != b for a, b in zip(shuffled, real))
    assert words(shuffle_genes=5) == shuffled != words(shuffle_genes=6)


def test_scrambles(context):
    """A model that tells types from the order of genes, and one that does as well without it."""
    labels = np.array(truth(context, N))
    found, rolled = (told(labels, answers, np.ones(N)) for answers in (labels, np.roll(labels, 1)))
    metrics = annotation_metrics(context, "test", found, rolled)
    scramble = metrics["scrambles"]["shuffled_genes"]
    assert scramble["accuracy"] == np.mean(np.roll(labels, 1) == labels) < 0.5
    assert scramble["accuracy_gain_ci"][0] > 0.4
    assert metrics["scrambles"]["shuffled_cells"]["accuracy"] < 0.5
    assert controls.unbeaten(metrics, metrics["scrambles"]) == {}
    same = annotation_metrics(context, "test", found, found)
    assert controls.unbeaten(same, same["scrambles"]) == {
        "accuracy": ["shuffled_genes"],
        "macro_f1": ["shuffled_genes"],
    }


def test_of_many_cells_some_from_all_over_the_split(context, telling):
    """The model, its scrambles and the baselines are measured on the same ones."""
    asked = telling([" x."] * 30)
    found = annotate(asked, "test", max_cells=30)
    shuffled = annotate(asked, "test", max_cells=30, shuffle_genes=0)
    made = generate_cells(asked, "test", sampling=Sampling(), max_cells=30)
    assert found.cells.tolist() == shuffled.cells.tolist() == made.cells.tolist()
    assert found.cells.max() > 100
    assert found.true.tolist() == truth(context, 30)
    right = dataclasses.replace(found, predicted=found.true)
    metrics = annotation_metrics(context, "test", right, shuffled)
    assert metrics["baselines"]["logistic_regression"]["accuracy"] > 0.7  # of other rows it would know nothing


def test_answers_that_name_no_label(context, telling):
    labels = truth(context, 4)
    assert "CD34" not in context.corpus.cells("train").fields("cell_type")  # but "CD34+" is
    found = annotate(telling([f" {labels[0]}.", " CD34.", "", f" {labels[3]}\n.."]), "test", max_cells=4)
    assert found.predicted.tolist() == [labels[0], UNPARSED, UNPARSED, labels[3]]
    assert annotation_metrics(telling([]), "test", found, found)["unparsed"] == 0.5


def test_only_templates_whose_fields_the_cells_have(context, tmp_path):
    file, cells = tmp_path / "cell_type_annotation.json", context.corpus.cells("test")
    asked = ["{donor}: {cell_sentence}.", "{organism}: {cell_sentence}."]
    file.write_text(json.dumps({"model_input": asked, "response": ["{cell_type}."]}))
    assert set(cells.fields("donor")) == {""}
    (found,), columns = templates_for("cell_type_annotation", str(tmp_path), cells, np.arange(3))
    assert found.model_input == asked[1]
    assert columns["organism"].tolist() == ["human"] * 3
    file.write_text(json.dumps({"model_input": asked[:1], "response": ["{cell_type}."]}))
    with pytest.raises(ValueError, match="every template of cell_type_annotation .* needs a field that some cells"):
        templates_for("cell_type_annotation", str(tmp_path), cells, np.arange(3))


def test_several_prompts_vote_by_probability(context, telling):
    label, other = truth(context, 1)[0], "CD34+"
    answers, probabilities = [f" {other}.", f" {label}.", f" {label}."], np.array([0.5, 0.3, 0.3])
    found = annotate(telling(answers, np.log(probabilities)), "test", prompts_per_cell=3, max_cells=1)
    assert found.answers.tolist() == [[other, label, label]]
    assert found.predicted.tolist() == [label]
    assert found.confidence == pytest.approx(0.6 / 3)
    found = annotate(telling(answers, np.log([0.7, 0.3, 0.3])), "test", prompts_per_cell=3, max_cells=1)
    assert found.predicted.tolist() == [other]


def test_metrics_by_hand(context):
    labels = truth(context, 4)
    confidence = np.array([0.9, 0.9, 0.6, 0.2])
    found = told(labels, [*labels[:3], UNPARSED], confidence)
    metrics = annotation_metrics(context, "test", found, found)
    assert metrics["accuracy"] == 0.75
    assert metrics["calibration"]["ece"] == pytest.approx((2 * 0.1 + 0.4 + 0.2) / 4)
    assert metrics["calibration"]["brier"] == pytest.approx((2 * 0.01 + 0.16 + 0.04) / 4)
    again = Annotations.from_json(json.loads(json.dumps(found.to_json())))
    np.testing.assert_array_equal(again.confidence, confidence)
    np.testing.assert_array_equal(again.cells, found.cells)
