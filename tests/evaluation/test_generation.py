import dataclasses

import numpy as np
import pytest

from c2s_jax.evaluation import generate_cells, generation_metrics, pages
from c2s_jax.evaluation.context import dense_expression, sentences_of, some_of
from c2s_jax.evaluation.generation import Generated, Spaces, populations
from c2s_jax.generation import Sampling

N = 60
ROWS = some_of(np.arange(140), N)


@pytest.fixture(scope="module")
def real(context) -> list[list[str]]:
    """The held-out cells' genes."""
    lists = sentences_of(context.corpus.cells("test"), ROWS, context.max_genes).lists()
    return [[context.corpus.genes.names[g] for g in genes] for genes in lists]


def measure(context, made: Generated) -> dict:
    cells = populations(context, "test", made, components=8, seed=0)
    return generation_metrics(context, "test", made, cells, k=5)


def generate(telling, answers: list[str]) -> Generated:
    return generate_cells(telling(answers), "test", sampling=Sampling(), max_cells=len(answers))


def test_real_sentences_are_perfect(context, telling, real):
    made = generate(telling, [f" {' '.join(genes)}." for genes in real])
    assert [x.tolist() for x in made.sentences.lists()] == [context.corpus.genes.ids(g).tolist() for g in real]
    found = measure(context, made)
    assert (found["valid"], found["unique"], found["overlap"], found["jaccard"]) == (1.0, 1.0, 1.0, 1.0)
    assert found["genes"] == found["real_genes"]
    references = found["references"]
    for key in ("knn_accuracy", "scfid", "scfid_model"):
        assert found[key] == pytest.approx(references["real_through_its_sentence"][key], rel=1e-4)
    assert found["scfid_model"] == pytest.approx(0.0, abs=1e-4)  # same sentences, same embedding
    assert references["shuffled_labels"]["knn_accuracy"] < found["knn_accuracy"]
    assert references["shuffled_labels"]["scfid"] > found["scfid"]
    assert references["real_vs_real"]["overlap"] < 1
    assert references["real_vs_real"]["knn_accuracy"] > 0.7


def test_another_real_cell_is_cut_like_a_generated_one(context, telling, real):
    """A whole cell has many more genes than a sentence, and would hold nearly all of it."""
    short = dataclasses.replace(telling([f" {' '.join(genes[:5])}." for genes in real]), max_genes=5)
    made = generate_cells(short, "test", sampling=Sampling(), max_cells=N)
    cells = populations(short, "test", made, components=8, seed=0)
    assert {len(x) for x in cells.drawn.sentences.lists()} == {5}
    drawn = generation_metrics(short, "test", made, cells, k=5)["references"]["real_vs_real"]
    held_out = sentences_of(context.corpus.cells("test"), ROWS, 5).lists()
    shared = [len(set(a) & set(b)) for a, b in zip(cells.drawn.sentences.lists(), held_out)]
    assert drawn["overlap"] == pytest.approx(np.mean(shared) / 5)
    assert drawn["jaccard"] == pytest.approx(np.mean([s / (10 - s) for s in shared]))


def test_counts_by_hand(context, telling, real):
    """Of each sentence: half the genes, one of them twice, and one word that is no gene."""
    written, kept, words = [], 0, 0
    for genes in real:
        half = genes[: len(genes) // 2]
        written.append(f" {' '.join([*half, half[0], 'NOGENE'])}.")
        kept, words = kept + len(half), words + len(half) + 2
    made = generate(telling, written)
    assert all(r.n_unknown == r.n_duplicate == 1 for r in made.repairs)
    found = measure(context, made)
    assert found["valid"] == pytest.approx((words - N) / words)
    assert found["unique"] == pytest.approx(1 - N / (words - N))
    assert found["overlap"] == pytest.approx(np.mean([(len(g) // 2) / len(g) for g in real]), rel=1e-5)


def test_conditions_are_the_held_out_cells_types(context, telling, real):
    asked = telling([" A."] * 12)
    made = generate_cells(asked, "test", sampling=Sampling(temperature=0.7), max_cells=12)
    labels = context.corpus.cells("test").fields("cell_type")[some_of(np.arange(140), 12)]
    assert made.labels.tolist() == labels.tolist()
    assert asked.sampler.sampling == Sampling(temperature=0.7)
    for prompt, label, genes in zip(asked.sampler.prompts, labels, real):
        assert str(label) in prompt
        assert genes[0] not in prompt.split()
    assert len(set(asked.sampler.prompts)) > len(set(labels))  # templates in turn


def test_types_that_training_has_not_seen(context, telling, real, monkeypatch):
    """There is no other real cell of a type to compare with; all else is measured, and shown."""
    train = context.corpus.cells("train")
    fields = train.fields
    monkeypatch.setattr(train, "fields", lambda name: np.full(len(train), "x") if name == "cell_type" else fields(name))
    monkeypatch.setattr(context.corpus, "cells", {"train": train, "test": context.corpus.cells("test")}.get)
    made = generate(telling, [f" {' '.join(genes)}." for genes in real])
    cells = populations(context, "test", made, components=8, seed=0)
    found = generation_metrics(context, "test", made, cells, k=5)
    assert set(found["references"]) == {"real_through_its_sentence", "shuffled_labels"}
    assert found["overlap"] == 1
    assert found["scfid"] > 0
    bars = pages._bars(found, Spaces.PCA, "PCA")
    assert bars is not None
    names = [
        row[0] for table in pages._generation_tables(found, made, context.corpus.genes.names) for row in table.rows
    ]
    assert "real vs real" not in names


def test_a_model_that_writes_nothing(context, telling):
    found = measure(context, generate(telling, [""] * N))
    assert (found["overlap"], found["genes"]) == (0.0, 0.0)
    assert np.isfinite(found["scfid"])


def test_stored_expression(context):
    cells = context.corpus.cells("test")
    rows = np.array([3, 0])
    dense = dense_expression(cells, rows, len(context.corpus.genes))
    for row, values in zip(rows, dense):
        cell = cells[int(row)]
        expected = np.zeros(len(context.corpus.genes), np.float32)
        expected[cell.genes] = cell.expression
        np.testing.assert_array_equal(values, expected)


def test_answers_of_the_longest_cell_fit(context):
    assert context.tokens_of(200) >= 202
    assert context.tokens_of(200) % 32 == 0


def test_a_real_model_generates(context):
    """The sampler itself instead of one that answers as told."""
    made = generate_cells(context, "test", sampling=Sampling(), seed=1, max_cells=4)
    again = generate_cells(context, "test", sampling=Sampling(), seed=1, max_cells=4)
    assert made.texts == again.texts
    assert any(made.texts)


def test_under_the_grammar_names_are_genes_and_none_comes_twice(context):
    def written(constrain: bool) -> Generated:
        small = dataclasses.replace(context, constrain=constrain, max_genes=12)
        return generate_cells(small, "test", sampling=Sampling(), max_cells=8)

    constrained = written(True)
    for report in constrained.repairs:
        assert report.n_words == report.n_valid > 0
        assert report.n_duplicate == 0
    assert max(len(genes) for genes in constrained.sentences.lists()) <= 12
    assert any(report.n_unknown for report in written(False).repairs)  # the model has learned nothing


def test_expression_is_read_off_the_line_of_each_data_set(context, monkeypatch):
    (fit,) = context.corpus.rank_expressions
    higher = dataclasses.replace(fit, intercept=fit.intercept + 1.0)
    monkeypatch.setitem(vars(context.corpus), "rank_expressions", [fit, higher])
    sentences = sentences_of(context.corpus.cells("test"), np.arange(3), 20)
    found = Spaces(context, components=4).of_sentences(np.array(["x"] * 3), sentences, np.array([1, 0, 1]))
    for expression, genes, line in zip(found.expression, sentences.lists(), (higher, fit, higher)):
        np.testing.assert_array_equal(expression[genes], line.expression(np.arange(len(genes))))
        assert np.count_nonzero(expression) == len(genes)
