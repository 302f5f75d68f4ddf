"""What each context chooses, compared with the columns by plain loops."""

import dataclasses

import numpy as np
import pytest

from c2s_jax.data.contexts import CONTEXTS, Chosen, Known
from c2s_jax.data.contexts.base import Context
from c2s_jax.data.permute import keys
from c2s_jax.data.settings import MixtureTask
from c2s_jax.tasks import TASKS
from tests.data.conftest import ATLAS, BULK, SCREEN, CorpusInMemory

N = 600


@pytest.fixture
def make(rich):
    """Function that makes a task's context, over a corpus with changes."""

    def make(task: str, corpus: CorpusInMemory = rich, split: str = "train", **settings) -> Context:
        return CONTEXTS[TASKS[task].context](Known(corpus, split), MixtureTask(task, **settings))

    return make


def choose(context: Context, n: int = N, seed: int = 0) -> tuple[np.ndarray, Chosen, list[list[int]]]:
    """Units, what was chosen for each, and the lists of each example."""
    units = np.flatnonzero(context.usable())
    unit = np.tile(units, n // len(units) + 1)[:n]
    chosen = context.choose(unit, keys(seed, np.arange(n)))
    lists = [chosen.lists[a:b].tolist() for a, b in zip(chosen.indptr, chosen.indptr[1:])]
    return unit, chosen, lists


def text(chosen: Chosen, field: str) -> list[str]:
    texts = chosen.texts[field]
    return [texts.value(code) for code in texts.codes.tolist()]


@pytest.fixture
def columns(rich) -> dict[str, list]:
    cells = rich.source
    names = ("donor", "tissue", "cell_type", "niche", "perturbation", "time", "batch")
    return {name: cells.fields(name).tolist() for name in names} | {"dataset": cells.dataset_ids.tolist()}


def sample_of(columns, cell: int) -> tuple:
    return columns["dataset"][cell], columns["donor"][cell], columns["tissue"][cell]


def near(rich, cell: int) -> set[int]:
    indptr, indices = rich.source.neighbours
    return set(indices[indptr[cell] : indptr[cell + 1]].tolist())


def test_one_cell(make):
    unit, chosen, lists = choose(make("cell_type_annotation"))
    assert lists == [[u] for u in unit.tolist()]
    assert chosen.anchor.tolist() == unit.tolist()
    assert BULK not in make("cell_type_annotation").datasets()[unit]


class TestSample:
    def test_cells_of_one_sample(self, make, columns):
        context = make("tissue_annotation")
        unit, chosen, lists = choose(context)
        assert len(np.unique(unit)) > 100
        assert min(map(len, lists)) == 5
        for u, cells in zip(unit.tolist(), lists):
            assert cells[0] == u
            assert len(set(cells)) == len(cells) <= 20
            assert {sample_of(columns, c) for c in cells} == {sample_of(columns, u)}
        assert chosen.cells.tolist() == [len(cells) for cells in lists]

    def test_small_samples_give_none_or_all_they_have(self, make, columns):
        counts: dict[tuple, int] = {}
        for cell in range(len(columns["donor"])):
            if columns["dataset"][cell] != BULK:
                counts[sample_of(columns, cell)] = counts.get(sample_of(columns, cell), 0) + 1
        assert min(counts.values()) < 15 < max(counts.values())
        unit, _, lists = choose(make("tissue_annotation", min_cells=15, max_cells=40), 3000)
        assert {sample_of(columns, u) for u in unit.tolist()} == {s for s, n in counts.items() if n >= 15}
        for u, cells in zip(unit.tolist(), lists):
            assert 15 <= len(cells) <= counts[sample_of(columns, u)]

    def test_number_of_cells(self, make):
        _, _, lists = choose(make("tissue_annotation", min_cells=3, max_cells=6), 4000)
        shares = np.bincount([len(cells) for cells in lists])[3:] / len(lists)
        np.testing.assert_allclose(shares, 0.25, atol=0.03)
        _, _, lists = choose(make("tissue_annotation", min_cells=2, max_cells=7, cells_drawn="log-uniform"), 4000)
        assert np.mean([len(cells) < 4 for cells in lists]) == pytest.approx(0.5, abs=0.03)

    def test_every_other_cell_comes_equally_often(self, make, columns):
        context = make("tissue_annotation", min_cells=5, max_cells=5)
        unit = np.full(8000, np.flatnonzero(context.usable())[0])
        chosen = context.choose(unit, keys(1, np.arange(len(unit))))
        counts = np.bincount(chosen.lists[chosen.lists != unit[0]])
        counts = counts[counts > 0]
        size = sum(sample_of(columns, c) == sample_of(columns, int(unit[0])) for c in range(280))
        assert len(counts) == size - 1
        assert np.ptp(counts) < 8 * np.sqrt(counts.mean())

    def test_types_in_the_order_of_the_cells(self, make, columns):
        _, chosen, lists = choose(make("sample_cell_type_annotation"))
        types = chosen.texts["cell_types"]
        assert "" in {columns["cell_type"][c] for c in range(280)}
        for i, cells in enumerate(lists):
            told = [types.value(code) for code in types.codes[types.indptr[i] : types.indptr[i + 1]].tolist()]
            assert told == [columns["cell_type"][c] for c in cells]
            assert "" not in told


class TestSpace:
    def test_all_neighbours(self, make, rich):
        unit, _, lists = choose(make("niche_annotation", max_cells=50))
        for u, cells in zip(unit.tolist(), lists):
            assert cells[0] == u
            assert len(set(cells)) == len(cells)
            assert set(cells[1:]) <= near(rich, u)
        full = [set(cells[1:]) == near(rich, u) for u, cells in zip(unit.tolist(), lists)]
        assert np.mean(full) > 0.5  # wanted are 2 to 50, at random

    def test_one_neighbour(self, make, rich):
        context = make("neighbour_generation")
        unit, _, lists = choose(context)
        for u, (first, other) in zip(unit.tolist(), lists):
            assert first == u
            assert other in near(rich, u)
        chosen = context.choose(unit[:1].repeat(2000), keys(4, np.arange(2000)))
        assert set(chosen.lists[1::2].tolist()) == near(rich, int(unit[0]))

    @pytest.mark.parametrize("cells", [2, 4])
    def test_neighbours_and_strangers(self, make, rich, columns, cells):
        unit, chosen, lists = choose(make("same_neighbourhood", min_cells=cells, max_cells=cells), 2000)
        answers = text(chosen, "answer")
        assert answers.count("Yes") == pytest.approx(1000, abs=120)
        for u, answer, chosen_cells in zip(unit.tolist(), answers, lists):
            others = set(chosen_cells[1:])
            assert len(others) == len(chosen_cells) - 1 == cells - 1
            if answer == "Yes":
                assert others <= near(rich, u)
            else:
                assert not others & near(rich, u)
                assert {sample_of(columns, c) for c in others} == {sample_of(columns, u)}
                assert u not in others

    def test_every_stranger_can_be_drawn(self, make, rich, columns):
        context = make("same_neighbourhood")
        u = int(np.flatnonzero(context.usable())[0])
        chosen = context.choose(np.full(3000, u), keys(2, np.arange(3000)))
        answers, others = np.array(text(chosen, "answer")), chosen.lists.reshape(-1, 2)[:, 1]
        sample = {c for c in range(280) if sample_of(columns, c) == sample_of(columns, u)} - {u}
        assert set(others[answers == "No"].tolist()) == sample - near(rich, u)
        assert set(others[answers == "Yes"].tolist()) == near(rich, u)

    def test_same_niche(self, make, columns):
        unit, chosen, lists = choose(make("same_niche"), 3000)
        answers = text(chosen, "answer")
        assert answers.count("Yes") == pytest.approx(1500, abs=150)
        others: dict[tuple[int, str], set] = {}
        for u, answer, (first, other) in zip(unit.tolist(), answers, lists):
            assert first == u != other
            assert sample_of(columns, other) == sample_of(columns, u)
            assert columns["niche"][other]
            assert (columns["niche"][other] == columns["niche"][u]) == (answer == "Yes")
            others.setdefault((u, answer), set()).add(other)
        u = int(unit[0])
        chosen = make("same_niche").choose(np.full(3000, u), keys(3, np.arange(3000)))
        answers, drawn = np.array(text(chosen, "answer")), chosen.lists.reshape(-1, 2)[:, 1]
        labelled = [c for c in range(200) if columns["niche"][c] and sample_of(columns, c) == sample_of(columns, u)]
        same = {c for c in labelled if columns["niche"][c] == columns["niche"][u]} - {u}
        assert set(drawn[answers == "Yes"].tolist()) == same
        assert set(drawn[answers == "No"].tolist()) == set(labelled) - same - {u}


def test_cluster(make, columns, rich):
    _, chosen, lists = choose(make("cluster_captioning"))
    captions = rich.datasets[ATLAS]["captions"]
    told: dict[str, set] = {}
    for caption, cells in zip(text(chosen, "caption"), lists):
        assert len(set(cells)) == 2
        (cluster,) = {(columns["dataset"][c], columns["cell_type"][c]) for c in cells}
        assert cluster[0] == ATLAS
        told.setdefault(cluster[1], set()).add(caption)
    assert told == {name: set(texts) for name, texts in captions.items()}


class TestQuestion:
    def test_cells_are_a_sample_of_the_data_set(self, make, columns):
        context = make("question_answering")
        unit, chosen, lists = choose(context)
        assert np.bincount(unit).tolist() == [300, 300]  # the third is for testing
        for u, question, answer, cells in zip(unit.tolist(), text(chosen, "question"), text(chosen, "answer"), lists):
            assert (question, answer) == [("Which tissue?", "Blood, mostly."), ("What was done?", "A screen")][u]
            assert len({sample_of(columns, c) for c in cells}) == 1
            assert columns["dataset"][cells[0]] == [ATLAS, SCREEN][u]
            assert 5 <= len(set(cells)) == len(cells) <= 20

    def test_fields_are_there_if_all_cells_have_them(self, make):
        context = make("question_answering")
        assert context.has("abstract").tolist() == [True, False]
        assert context.has("organism").tolist() == [True, True]
        assert context.has("cell_type").tolist() == [False, False]
        assert context.has("question").all()

    def test_other_split(self, make):
        _, chosen, _ = choose(make("question_answering", split="test"), 3)
        assert set(text(chosen, "question")) == {"Not for training?"}


def test_gene_set(make, rich):
    context = make("gene_set_naming")
    unit, chosen, _ = choose(context, 20)
    train = [s for s in rich.gene_sets if s.split == "train"]
    assert text(chosen, "gene_set_name") == [train[u].name for u in unit.tolist()]
    block = context.source.take(chosen.lists)
    for u, genes in zip(unit.tolist(), np.split(block.genes, block.indptr[1:-1])):
        assert genes.tolist() == train[u].genes.tolist()
    assert context.source.n_genes.tolist() == [8] * len(train)
    assert len(set(context.datasets().tolist())) == 2
    assert not context.has("organism").any()


class TestPair:
    def test_controls_match_as_well_as_they_can(self, make, columns):
        unit, chosen, lists = choose(make("perturbation_response"), 3000)
        controls = [c for c in range(200, 280) if columns["perturbation"][c] == "control"]
        drawn: dict[int, set] = {}
        for u, (control, treated) in zip(unit.tolist(), lists):
            assert treated == u
            drawn.setdefault(u, set()).add(control)
        levels = [("cell_type", "donor", "batch"), ("cell_type", "donor"), ("cell_type", "batch"), ("cell_type",)]
        used = set()
        for u, found in drawn.items():
            assert columns["perturbation"][u] not in ("control", "")
            for level, names in enumerate(levels):
                matching = {c for c in controls if all(columns[f][c] == columns[f][u] for f in names)}
                if matching:
                    assert found == matching
                    used.add(level)
                    break
        assert {0, 1} <= used
        types = {columns["cell_type"][c] for c in controls}
        perturbed = {c for c in range(200, 280) if columns["perturbation"][c] not in ("control", "")}
        assert set(drawn) == {c for c in perturbed if columns["cell_type"][c] in types}
        assert chosen.anchor.tolist() == unit.tolist()

    def test_without_a_control_of_the_type(self, make, rich, columns):
        cells = rich.source
        fields = {n: cells.fields(n).tolist() for n in ("cell_type", "perturbation")}
        of_type = [c for c in range(280) if fields["cell_type"][c] == "monocyte"]
        for c in of_type:
            fields["perturbation"][c] = fields["perturbation"][c].replace("control", "drug")
        changed = dataclasses.replace(
            rich, source=type(cells)(cells.lists, cells.values, fields, dataset_ids=cells.dataset_ids)
        )
        units = np.flatnonzero(make("perturbation_naming", changed).usable())
        assert "monocyte" not in {fields["cell_type"][u] for u in units.tolist()}
        assert len(units) > 20


class TestBulk:
    @pytest.mark.parametrize("task", ["bulk_generation", "cell_generation_from_bulk"])
    def test_cells_and_their_sum(self, make, columns, task):
        context = make(task)
        unit, chosen, lists = choose(context)
        fewest, most = TASKS[task].cells
        for u, n, (*cells, bulk) in zip(unit.tolist(), chosen.cells.tolist(), lists):
            assert cells[0] == u
            assert fewest <= len(set(cells)) == len(cells) == n <= most
            assert columns["dataset"][bulk] == BULK
            assert {columns["dataset"][c] for c in cells} == {ATLAS}
            for field in ("donor", "cell_type"):
                assert {columns[field][c] for c in cells} == {columns[field][bulk]}
        assert len({lists[-1] for lists in lists}) > 8

    def test_cells_without_a_type_belong_to_none(self, make, columns):
        usable = make("cell_generation_from_bulk").usable()
        assert all(columns["cell_type"][c] and columns["dataset"][c] == ATLAS for c in np.flatnonzero(usable))


@pytest.mark.parametrize("task", [t for t in TASKS if TASKS[t].context not in ("gene_set", "question")])
def test_sums_of_cells_are_no_cells(make, columns, task):
    """But for the one list that is a pseudobulk."""
    several = {"min_cells": 2} if TASKS[task].cells[1] > 1 else {}
    unit, chosen, _ = choose(make(task, **several))
    shown = np.concatenate([chosen.lists[a : a + n] for a, n in zip(chosen.indptr, chosen.cells)])
    assert BULK not in {columns["dataset"][c] for c in (*unit.tolist(), *shown.tolist())}


def test_a_name_makes_no_sums(rich):
    datasets = [{"name": name, "provenance": {"sums_of": None}} for name in ("atlas", "screen", "atlas_pseudobulk")]
    known = Known(dataclasses.replace(rich, datasets=datasets), "train")
    assert known.bulk_of.tolist() == [-1, -1, -1]
    assert known.single.all()


@pytest.mark.parametrize("task", TASKS)
def test_an_example_depends_on_its_unit_and_key_alone(make, task):
    context = make(task)
    unit, chosen, lists = choose(context)
    again = np.random.default_rng(0).permutation(N)[:50]
    alone = context.choose(unit[again], keys(0, np.arange(N))[again])
    for i, j in enumerate(again.tolist()):
        assert alone.lists[alone.indptr[i] : alone.indptr[i + 1]].tolist() == lists[j]
    for name, texts in chosen.texts.items():
        part = alone.texts[name]
        whole = texts.select(again)
        assert [part.value(c) for c in part.codes.tolist()] == [whole.value(c) for c in whole.codes.tolist()]


NOTHING_DRAWN = {"gene_set", "cell"}  # there, a unit is all of an example


@pytest.mark.parametrize("task", [t for t in TASKS if TASKS[t].context not in NOTHING_DRAWN and "from_bulk" not in t])
def test_other_keys_give_other_examples(make, task):
    context = make(task)
    assert choose(context, seed=1)[2] != choose(context, seed=2)[2]
