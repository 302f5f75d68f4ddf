"""Suites of texts on real cells, with models that answer as told and an encoder that knows words apart."""

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from c2s_jax.data.corpus import Question
from c2s_jax.evaluation import controls, suite_pages, suites, texts
from tests.evaluation.conftest import Knowing

RARE = "CD34+"
ABSTRACTS = ["Blood cells of a healthy donor were sorted and sequenced", "A census of cells in blood"]


class Words:
    """Every word has a direction of its own: BERTScore is then the overlap of words."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.tokenizer = SimpleNamespace(special_ids=(), encode_batch=self._encode, path="words", fingerprint="0" * 16)

    def _encode(self, batch: Sequence[str]) -> list[NDArray]:
        return [np.array([self.known.setdefault(w, len(self.known)) for w in t.split()], np.int64) for t in batch]

    def token_states(self, batch: Sequence[str], *, layer: int | None = None) -> list[tuple[NDArray, NDArray]]:
        return [(ids, np.eye(2048, dtype=np.float32)[ids]) for ids in self._encode(batch)]


class Described:
    """The bundled corpus with captions by type, two abstracts, and questions that it does not have."""

    def __init__(self, held: Any, split: str = ""):
        self.held, self.split = held, split

    def __getattr__(self, name: str) -> Any:
        return getattr(self.held, name)

    def __len__(self) -> int:
        return len(self.held)

    @property
    def datasets(self) -> list[dict]:
        types = sorted(set(self.held.cells("train").fields("cell_type")) - {""})
        captions = {t: [f"These are the {t} of a donor", f"{t} taken from blood"] for t in types}
        return [
            {**d, "captions": captions, "caption_field": "cell_type", "abstracts": ABSTRACTS}
            for d in self.held.datasets
        ]

    @property
    def questions(self) -> list[Question]:
        return [
            Question(0, f"What is number {i}?", f"It is thing {i}", split)
            for split in ("train", "test")
            for i in range(4)
        ]

    def cells(self, split: str) -> "Described":
        return Described(self.held.cells(split), split)

    def fields(self, name: str) -> np.ndarray:
        values = self.held.fields(name)
        # No cell to train on is of the rare type: its cluster is new.
        return np.where(values == RARE, "", values) if (self.split, name) == ("train", "cell_type") else values

    def field_codes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values, codes = np.unique(self.fields(name), return_inverse=True)
        return codes.astype(np.int32), values


@pytest.fixture
def described(context):
    return dataclasses.replace(context, corpus=Described(context.corpus), max_genes=30)


def measure(telling, context, answers: Sequence[str], suite: str, n: int) -> dict:
    changes = dict(corpus=context.corpus, max_genes=context.max_genes)
    told = telling([f" {a}." for a in answers], **changes)
    return texts.text_metrics(told, "test", suite, encoder=Words(), layer=None, n=n)


@pytest.mark.parametrize(("suite", "n"), [("caption", 40), ("qa", 4)])
def test_true_prompts_score_one_and_scrambles_less(described, suite: str, n: int):
    asked = texts.asked_of(described, "test", suite, 40, 0)
    answers = {p.tobytes(): f" {r[-1]}." for p, r in zip(asked.examples.tokens[0], asked.references)}
    model = Knowing(described.formatter.tokenizer, answers)
    context = dataclasses.replace(described, sampler=model)
    found = texts.text_metrics(context, "test", suite, encoder=Words(), layer=None, n=40)
    assert found["n"] == len(answers) == n
    scramble = {"caption": "shuffled_cells", "qa": "shuffled_questions"}[suite]
    # It was asked twice, first all true prompts and then (nearly) none of them.
    assert [(asked, heat) for asked, _, heat in model.asked] == [(n, 0.0)] * 2
    assert model.asked[0][1] == n > 4 * model.asked[1][1]
    assert found["scrambles"][scramble]["bertscore"] < 0.9
    assert 0 < found["scrambles"][scramble]["bertscore_gain_ci"][0] < 1
    assert found["bertscore"] == pytest.approx(1, abs=1e-6)
    assert found["bertscore_ci"] == pytest.approx([1, 1], abs=1e-6)
    assert found["exact"] == 1
    for rule in ("random_training_answer", "central_training_answer"):
        assert 0.2 < found["baselines"][rule]["bertscore"] < 0.95
    if suite == "caption":
        assert found["scrambles"]["shuffled_prompts"]["bertscore"] < 0.9
        assert found["references"]["another_reference"]["bertscore"] < 0.8
        assert controls.unbeaten(found, found["scrambles"]) == {}
        table, examples = suite_pages.tables({"caption": found})
        assert (table.section, examples.section) == ("Caption", "Caption")
        assert len(examples.rows) == texts.SHOWN
    else:
        assert set(found["scrambles"]) == {scramble}  # one data set: there are no other cells to ask about
        assert not found["references"]


def test_a_caption_matches_any_of_its_cluster(described, telling):
    asked = texts.asked_of(described, "test", "caption", 12, 0)
    units = {unit.split(" · ")[1] for unit in asked.units}
    assert len(units) > 2
    for unit, references in zip(asked.units, asked.references):
        kind = unit.split(" · ")[1]
        assert set(references) == {f"These are the {kind} of a donor", f"{kind} taken from blood"}
    first, second = (
        measure(telling, described, [r[i] for r in asked.references], "caption", 12)["bertscore"] for i in (0, 1)
    )
    assert first == second == pytest.approx(1, abs=1e-6)


def test_what_training_has_not_seen_is_told_apart(described, telling, monkeypatch):
    monkeypatch.setattr(texts, "TRAINING_ANSWERS", 1)  # for baselines alone
    asked = texts.asked_of(described, "test", "caption", 80, 0)
    new = np.array([unit.endswith(RARE) for unit in asked.units])
    assert 0 < new.sum() < 80
    answers = ["nothing" if unseen else r[0] for unseen, r in zip(new, asked.references)]
    found = measure(telling, described, answers, "caption", 80)
    inside, outside = (found["by_distribution"][f"{side}_distribution"] for side in ("in", "out_of"))
    assert (inside["bertscore"], inside["n"]) == (pytest.approx(1, abs=1e-6), (~new).sum())
    assert (outside["bertscore"], outside["n"]) == (0, new.sum())
    assert inside["bertscore_ci"] == pytest.approx([1, 1], abs=1e-6)
    for rule, scores in found["baselines"].items():
        both = [part["baselines"][rule]["bertscore"] * part["n"] for part in (inside, outside)]
        assert sum(both) / 80 == pytest.approx(scores["bertscore"])
    # Over all prompts answers are better than those to other prompts; about what is new they are not, and that is said.
    said = [text for text in suite_pages.flags({"caption": found}) if "prompts about something else" in text]
    assert len(said) == 1
    assert said[0].startswith("caption.out_of_distribution: bertscore 0.000 does not beat")
    titles = [table.title for table in suite_pages.tables({"caption": found})]
    assert titles[-1] == "Captions of clusters: of what training has not seen"


def test_one_answer_to_everything_is_flagged(described, telling):
    found = measure(telling, described, ["These are the cells of a donor"] * 20, "caption", 20)
    assert controls.unbeaten(found, found["scrambles"]) == {"bertscore": ["shuffled_cells", "shuffled_prompts"]}
    assert found["scrambles"]["shuffled_cells"]["bertscore_gain_ci"] == [0, 0]
    assert any("does not beat answers to prompts about something else" in f for f in suite_pages.flags({"q": found}))


def test_abstracts_count_by_their_best_variant(described, telling):
    asked = texts.asked_of(described, "test", "abstract", 6, 0)
    assert all(set(references) == set(ABSTRACTS) for references in asked.references)
    found = measure(telling, described, ABSTRACTS * 3, "abstract", 6)
    assert found["bertscore"] == pytest.approx(1, abs=1e-6)


def test_no_texts_no_suite(context):
    for suite in texts.TASK_OF:
        assert texts.text_metrics(context, "test", suite, encoder=Words(), layer=None, n=4) is None


def test_an_encoder_must_be_given():
    settings = SimpleNamespace(more_suites=("qa",), text_encoder="")
    with pytest.raises(ValueError, match="suite qa compares texts by BERTScore: give a BERT"):
        suites.check(settings)
    suites.check(SimpleNamespace(more_suites=("qa", "caption"), text_encoder="folder"))
