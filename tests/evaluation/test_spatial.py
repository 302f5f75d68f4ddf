"""Spatial tasks on a small plane of cells, asked of a model that knows the answers to true prompts alone."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from c2s_jax.evaluation import Context, controls, suite_pages
from c2s_jax.evaluation.examples import Examples, examples_of, longest_answer
from c2s_jax.evaluation.spatial import GENERATION, LABELS, spatial_metrics
from c2s_jax.generation import Sampling
from tests.data.conftest import formatter, gene_names, rich, tokenizer  # noqa: F401
from tests.evaluation.conftest import Knowing

N = 40


@pytest.fixture
def space(rich, formatter) -> Context:  # noqa: F811
    """The corpus with an asker that knows nothing yet."""
    return Context(None, None, None, rich, formatter, Knowing(formatter.tokenizer, {}), max_genes=200, seq_len=4096)


@pytest.fixture
def knowing(space) -> Context:
    """The same, knowing all true prompts of the spatial tasks."""
    known = {}
    for task in (*LABELS, GENERATION):
        examples = examples_of(space, "test", task, max_examples=N)
        known |= {p.tobytes(): r for p, r in zip(examples.tokens[0], examples.references)}
    return dataclasses.replace(space, sampler=Knowing(space.formatter.tokenizer, known))


def test_true_prompts_score_one_and_scrambles_less(knowing):
    found = spatial_metrics(knowing, "test", sampling=Sampling(0.7), max_examples=N)
    assert set(found) == {*LABELS, GENERATION}
    for task in LABELS:
        values = found[task]
        assert (values["accuracy"], values["macro_f1"], values["unparsed"], values["n"]) == (1.0, 1.0, 0.0, N)
        assert values["scrambles"]["shuffled_cells"]["accuracy"] < 0.9
        assert values["accuracy_ci"] == [1, 1]
        gain = 1 - values["scrambles"]["shuffled_cells"]["accuracy"]
        low, high = values["scrambles"]["shuffled_cells"]["accuracy_gain_ci"]
        assert 0 < low <= gain <= high <= 1
    made = found[GENERATION]
    assert made["overlap"] == made["jaccard"] == 1
    assert made["overlap_ci"] == made["jaccard_ci"] == [1, 1]
    low, high = made["scrambles"]["shuffled_cells"]["overlap_gain_ci"]
    assert 0 < low <= 1 - made["scrambles"]["shuffled_cells"]["overlap"] <= high
    assert made["scrambles"]["shuffled_cells"]["overlap"] < 0.5
    assert all(x["overlap"] < 0.5 for x in made["baselines"].values())
    assert suite_pages.flags({"spatial": found}) == []
    # Labels are asked for greedily, cells are sampled.
    assert {t for _, _, t in knowing.sampler.asked[:6]} == {0.0}
    assert {t for _, _, t in knowing.sampler.asked[6:]} == {0.7}
    assert all(true == N for _, true, _ in knowing.sampler.asked[::2])
    assert all(true < N / 2 for _, true, _ in knowing.sampler.asked[1::2])


def test_a_model_that_does_not_look_is_flagged(space):
    space.sampler.known = {b"": " No."}
    found = spatial_metrics(space, "test", sampling=Sampling(), max_examples=N)
    niche = found["same_niche"]
    assert niche["accuracy"] == niche["scrambles"]["shuffled_cells"]["accuracy"]
    margin = 1.96 * np.sqrt(niche["accuracy"] * (1 - niche["accuracy"]) / N)
    assert niche["accuracy_ci"] == pytest.approx([niche["accuracy"] - margin, niche["accuracy"] + margin], abs=0.04)
    assert niche["scrambles"]["shuffled_cells"]["accuracy_gain_ci"] == [0, 0]
    assert found["niche_annotation"]["unparsed"] == 1
    flags = suite_pages.flags({"spatial": found, "split": "test"})
    assert any(flag.startswith("spatial.same_niche: accuracy") for flag in flags)
    tables = {t.title: t for t in suite_pages.tables({"spatial": found})}
    table = tables["Are these cells of one niche?"]
    assert table.section == "Spatial"
    assert 'class="flag"' in "".join(map(str, table.rows[0]))
    assert [row[0] for row in table.rows[1:]] == ["majority answer", "logistic regression", "shuffled cells"]
    assert set(controls.unbeaten(found[GENERATION], found[GENERATION]["scrambles"])) == {"overlap", "jaccard"}


@pytest.mark.parametrize("task", LABELS)
def test_baselines_by_hand(knowing, rich, task):  # noqa: F811
    """The in-memory corpus has the same cells in all splits, so training examples are the held-out ones and more."""
    found = spatial_metrics(knowing, "test", sampling=Sampling(), max_examples=N)[task]["baselines"]
    examples = examples_of(knowing, "test", task, max_examples=None)
    true = np.array([r.strip().removesuffix(".") for r in examples.references])
    x, bounds, n_genes = [], examples.draw.draft.indptr, len(rich.names)
    for start, end in zip(bounds[:-1], bounds[1:]):
        cells = rich.source.take(examples.draw.lists[start:end]).matrix(n_genes).toarray()
        gap = np.abs(cells[0] - cells[1:].mean(0))
        x.append(cells.mean(0) if task == "niche_annotation" else gap)
    model = LogisticRegression(max_iter=2000).fit(x, true)
    assert found["logistic_regression"]["accuracy"] == pytest.approx(model.score(x[:N], true[:N]), abs=0.03)
    values, counts = np.unique(true, return_counts=True)
    assert found["majority"]["accuracy"] == pytest.approx(np.mean(true[:N] == values[counts.argmax()]))


def test_examples_are_those_of_the_data(space, rich):  # noqa: F811
    examples = examples_of(space, "test", GENERATION, max_examples=7)
    assert len(examples) == 7
    near, bounds = rich.source.neighbours[1], rich.source.neighbours[0]
    first, other = examples.draw.lists[::2], examples.draw.lists[1::2]
    assert first.tolist() == examples.anchors.tolist()
    assert all(b in near[bounds[a] : bounds[a + 1]] for a, b in zip(first, other))
    for i, (cell, genes) in enumerate(zip(other, examples.sentences(-1).lists())):
        assert genes.tolist() == rich.source.lists[cell].tolist()
        assert examples.references[i].strip() == " ".join(rich.names[g] for g in genes) + "."
    np.testing.assert_array_equal(
        examples.expression(0)[3], rich.source.take(first[3:4]).matrix(len(rich.names)).toarray()[0]
    )


def test_scrambles_keep_everything_but_what_they_deal(space):
    examples = examples_of(space, "test", "same_neighbourhood", max_examples=12)
    rng = np.random.Generator(np.random.Philox(key=0))
    kept = examples.with_shuffled_lists(rng, keep_first=True).lists
    starts = examples.draw.draft.indptr[:-1]
    assert kept[starts].tolist() == examples.draw.lists[starts].tolist()
    assert sorted(kept.tolist()) == sorted(examples.draw.lists.tolist())
    assert kept.tolist() != examples.draw.lists.tolist()


def test_exchanging_what_is_asked_about(space):
    examples = examples_of(space, "train", "question_answering", max_examples=None)
    assert longest_answer([examples, None]) >= max(map(len, examples.tokens[1]))
    others = np.roll(np.arange(len(examples)), 1)
    draft = examples.with_text_of("question", others).draft
    asked = [draft.texts["question"].value(code) for code in draft.texts["question"].codes.tolist()]
    assert asked == np.array(examples.values("question"))[others].tolist() != examples.values("question")
    own, moved = examples.draw, examples.with_lists_of(others)
    counts = np.diff(own.draft.indptr)
    assert len(set(counts.tolist())) > 1
    for i, other in enumerate(others):
        here, there = (slice(*d.draft.indptr[[n, n + 1]]) for d, n in ((moved, i), (own, other)))
        assert moved.lists[here].tolist() == own.lists[there].tolist()
        assert moved.draft.texts["num_cells"].codes[i] == moved.draft.cells[i] == counts[other]
    assert moved.draft.texts["question"] is own.draft.texts["question"]


def test_nothing_in_space_no_suite(context):
    assert spatial_metrics(context, "test", sampling=Sampling()) is None
    assert isinstance(examples_of(context, "test", "cell_type_annotation", max_examples=2), Examples)


def test_examples_that_do_not_fit(space):
    short = dataclasses.replace(space, seq_len=8)
    examples = examples_of(short, "test", GENERATION, max_examples=3)
    with pytest.raises(ValueError, match=r"takes \d+ tokens with one gene of each list; raise data.seq_len=8"):
        examples.tokens  # noqa: B018
