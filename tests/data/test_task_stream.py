import dataclasses
import json

import numpy as np
import pytest

from c2s_jax.data import MixtureTask
from c2s_jax.data.contexts import Known, MissingData
from c2s_jax.data.task_stream import TaskStream, deal
from c2s_jax.tasks import TASKS
from tests.data.conftest import ATLAS, BULK, SCREEN

NUMBERS = np.arange(2000)


@pytest.fixture
def stream(rich):
    def make(task: str, corpus=rich, *, split="train", number=0, seed=0, **settings) -> TaskStream:
        return TaskStream(MixtureTask(task, **settings), Known(corpus, split), number=number, seed=seed)

    return make


def texts_of(draw, field: str) -> np.ndarray:
    texts = draw.draft.texts[field]
    return np.array([texts.value(code) for code in texts.codes.tolist()])


@pytest.mark.parametrize("task", TASKS)
def test_an_example_is_a_function_of_its_number(stream, task):
    whole, other = stream(task).draw(NUMBERS), stream(task, seed=1).draw(NUMBERS)
    some = np.random.default_rng(0).permutation(2000)[:40]
    alone = stream(task).draw(some)
    for i, number in enumerate(some.tolist()):
        mine = slice(*alone.draft.indptr[i : i + 2])
        same = slice(*whole.draft.indptr[number : number + 2])
        for name in ("lists", "key", "most"):
            np.testing.assert_array_equal(getattr(alone, name)[mine], getattr(whole, name)[same])
        assert alone.draft.template[i] == whole.draft.template[number]
    assert not np.array_equal(whole.draft.template, other.draft.template)
    assert len(np.unique(whole.key)) == len(whole.key)


@pytest.mark.parametrize("task", TASKS)
def test_every_unit_once_an_epoch(stream, task):
    made = stream(task)
    units = made._units.at(np.arange(3 * len(made)))
    for epoch in np.split(units, 3):
        assert sorted(epoch.tolist()) == np.flatnonzero(made.context.usable() & _has(made)).tolist()
    assert not np.array_equal(units[: len(made)], units[len(made) : 2 * len(made)]) or len(made) < 4


def _has(made: TaskStream) -> np.ndarray:
    return np.all([made.context.has(f) for f in TASKS[made.settings.task].fields] or [True], axis=0)


class TestTemplates:
    def test_all_are_used_alike(self, stream):
        made = stream("cell_type_annotation")
        counts = np.bincount(made.draw(np.arange(8000)).draft.template, minlength=len(made.templates))
        assert counts.min() > 0.8 * 8000 / len(made.templates)

    def test_only_those_whose_fields_a_cell_has(self, stream, rich):
        made = stream("perturbation_annotation")
        draw = made.draw(NUMBERS)
        time = rich.source.fields("time")
        used = set()
        for cell, template in zip(draw.lists.tolist(), draw.draft.template.tolist()):
            fields = made.templates[template].fields
            assert "dose" not in fields
            assert time[cell] or "time" not in fields
            used.add(("time" in fields, bool(time[cell])))
        assert used == {(False, False), (False, True), (True, True)}
        told = texts_of(draw, "time")
        np.testing.assert_array_equal(told, time[draw.lists])

    def test_interactions_or_not(self, stream):
        with_them = stream("niche_annotation", interactions=True).templates
        without = stream("niche_annotation").templates
        assert all("interactions" in t.fields for t in with_them)
        assert not any("interactions" in t.fields for t in without)
        assert len(with_them) >= 5
        with pytest.raises(ValueError, match="interactions=True, but no template of prompts='c2s_jax' uses"):
            stream("cell_type_annotation", interactions=True)

    def test_source_of_prompts(self, stream, tmp_path):
        content = {"model_input": ["Q {cell_sentence}."], "response": ["{cell_type}."]}
        (tmp_path / "cell_type_annotation.json").write_text(json.dumps(content))
        assert [t.model_input for t in stream("cell_type_annotation", prompts=str(tmp_path)).templates] == [
            "Q {cell_sentence}."
        ]

    def test_a_template_no_cell_has_the_fields_of(self, stream, tmp_path):
        content = {"model_input": ["{disease} {cell_sentence}."], "response": ["{cell_type}."]}
        (tmp_path / "cell_type_annotation.json").write_text(json.dumps(content))
        with pytest.raises(MissingData, match="no cell of the corpus' split 'train' has disease; map an"):
            stream("cell_type_annotation", prompts=str(tmp_path))


class TestTemperature:
    def test_by_size(self, stream, rich):
        made = stream("cell_sentence_modelling")
        drawn = rich.source.dataset_ids[made.draw(np.arange(2800)).lists]
        assert np.bincount(drawn).tolist() == [2000, 800]  # ten epochs of 200 and 80 cells; sums are no cells

    @pytest.mark.parametrize("temperature", [2.0, 5.0, 0.5])
    def test_shares(self, stream, rich, temperature):
        made = stream("cell_sentence_modelling", temperature=temperature)
        drawn = rich.source.dataset_ids[made.draw(np.arange(1 << 14)).lists]
        share = np.array([200, 80]) ** (1 / temperature)
        np.testing.assert_allclose(np.bincount(drawn) / len(drawn), share / share.sum(), atol=2 / 4096)
        first = np.bincount(drawn[:4000], minlength=2) / 4000
        np.testing.assert_allclose(first, share / share.sum(), atol=0.04)  # well mixed, too

    def test_each_cell_once_an_epoch_of_its_data_set(self, stream, rich):
        made = stream("cell_sentence_modelling", temperature=3.0)
        lists = made.draw(np.arange(5_000)).lists
        for dataset, size in ((ATLAS, 200), (SCREEN, 80)):
            cells = lists[rich.source.dataset_ids[lists] == dataset]
            counts = np.bincount(cells)[np.unique(cells)]
            assert len(counts) == size
            assert np.ptp(counts) <= 1
        assert BULK not in rich.source.dataset_ids[lists]

    def test_sources_of_gene_sets(self, stream):
        made = stream("gene_set_naming", temperature=1e6)
        names = texts_of(made.draw(np.arange(1 << 14)), "gene_set_name")
        hallmark = np.isin(names, [f"set {i} of genes" for i in range(6)])
        assert hallmark.mean() == pytest.approx(0.5, abs=0.001)

    @pytest.mark.parametrize("weights", [[1.0], [1, 1, 1], [1e9, 1, 1e-9], list(range(1, 60))])
    def test_deal(self, weights):
        slots = deal(np.array(weights, float), 1000)
        assert slots.sum() == 1000
        assert slots.min() >= 1
        share = np.array(weights) / np.sum(weights)
        np.testing.assert_allclose(slots, share * 1000, atol=1 + len(weights) * share.max())


LACKS = {
    "tissue_annotation": "no sample .* has 200 cells; lower min_cells, or map donor",
    "sample_cell_type_annotation": "no sample .* has 200 cells with a cell type",
    "niche_annotation": "no cell has neighbours in space; .* a radius",
    "same_neighbourhood": "no cell has neighbours in space",
    "same_niche": "no sample has cells of several niches; map an obs column to niche",
    "cluster_captioning": "no cell belongs to a cluster with a caption.* captions",
    "question_answering": "the split has no question .* give data sets questions",
    "gene_set_naming": "the split has no gene set; give gene sets",
    "perturbation_response": "no data set has perturbed cells with controls .*control",
    "bulk_generation": "no cell belongs to a pseudobulk .*pseudobulk of a",
    "abstract_generation": "no cell of the corpus' split 'train' has abstract",
    "perturbation_annotation": "no cell of the corpus' split 'train' has perturbation",
}


@pytest.mark.parametrize("task", LACKS)
def test_a_corpus_without_the_data(stream, rich, task):
    cells = rich.source
    known = ("donor", "tissue", "cell_type", "organism")
    plain = type(cells)(cells.lists, cells.values, {name: cells.fields(name).tolist() for name in known})
    bare = dataclasses.replace(rich, source=plain, datasets=[{"name": "a"}], gene_sets=[], questions=[])
    settings = {"min_cells": 200} if "200" in LACKS[task] else {}
    with pytest.raises(MissingData, match=f"^mixture, {task}: {LACKS[task]}.*or drop the task$"):
        stream(task, bare, **settings)


def test_a_corpus_without_interactions(stream, rich):
    with pytest.raises(MissingData, match="interactions=True, but the corpus has none; give interactions when build"):
        stream("niche_annotation", dataclasses.replace(rich, interactions=[]), interactions=True)
