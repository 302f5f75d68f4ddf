"""Cells under perturbations that they did not have, of a model that answers as told."""

import json
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.decomposition import PCA

from c2s_jax import metrics
from c2s_jax.data.corpus import GeneSet
from c2s_jax.encoders import load_cell_encoder
from c2s_jax.evaluation import controls, perturbation, spaces, suite_pages, suites
from c2s_jax.evaluation.context import dense_expression, sentences_of, some_of
from c2s_jax.evaluation.embedding import Embedder
from c2s_jax.evaluation.perturbed import control_side, moved_controls, perturbed, training_sides, untreated
from c2s_jax.evaluation.sides import Cells, Side
from c2s_jax.generation import Sampling
from tests.evaluation.conftest import Perturbed
from tests.models.scgpt_oracle import Reference, write_folder

N = 60


def treated_rows(corpus) -> np.ndarray:
    cells = corpus.cells("test")
    return some_of(np.flatnonzero((cells.fields("cell_type") != "") & (cells.fields("perturbation") != "ctrl")), N)


def test_perturbation_with_perfect_answers(corpus, repeating, tmp_path):
    """Real cells' own sentences as answers: nothing is lost but what a sentence loses; names make no difference."""
    cells, treated = corpus.cells("test"), treated_rows(corpus)
    asked = repeating(treated)
    lists = sentences_of(cells, treated, asked.max_genes).lists()
    settings = dict(sampling=Sampling(), components=8, max_cells=60, seed=0)
    export = dict(export=("cell-eval", "pertpy"), folder=str(tmp_path))
    found = perturbation.perturbation_metrics(asked, "test", **settings, **export)
    assert found["n"] == 60
    own = found["references"]["real_through_its_sentence"]
    for key in ("scfid", "mmd", "wasserstein"):
        assert found[key] == pytest.approx(own[key], rel=1e-4)
        assert set(found[f"{key}_by_condition"]) == set(found["condition_n"])
    beside = {"control_cells", "perturbed_cells", "nearest_training_cell", "mean_shift"}
    assert set(found["baselines"]) == set(found["change"]["baselines"]) == beside
    assert found["scfid"] < found["references"]["real_vs_real"]["scfid"]
    assert sum(n for n, _ in found["condition_n"].values()) <= 60
    # The told model answers alike whatever the names: the scramble is not beaten, and that is flagged.
    assert set(controls.unbeaten(found, found["scrambles"])) == {"scfid", "mmd", "wasserstein"}
    check_intervals(found)
    assert found["resampled"] == found["change"]["resampled"] == "conditions and cells"
    nearer = found["baselines"]["control_cells"]["scfid_gain_ci"]
    assert nearer[1] < 0  # the model's mean is below
    prompts = asked.sampler.prompts
    assert all("ctrl" not in p for p in prompts)
    assert any("IFN-beta" in p for p in prompts)
    assert all(name not in p for name, p in zip(cells.fields("perturbation")[treated], prompts))
    real, made = (anndata.read_h5ad(tmp_path / f"cell_eval_{side}.h5ad") for side in ("real", "pred"))
    untreated = cells.fields("perturbation") == "ctrl"
    assert real.obs["target"].value_counts()["non-targeting"] == untreated.sum()
    assert real.obs["target"].tolist()[:60] == cells.fields("perturbation")[treated].tolist()
    assert (real.obs == made.obs).all(axis=None)
    in_sentence = (made.X[:60] != 0).sum(axis=1)  # genes that the line puts at 0 are not among them
    assert 0 < in_sentence.max() <= max(map(len, lists))
    assert anndata.read_h5ad(tmp_path / "pertpy.h5ad").n_obs == 120 + untreated.sum()
    titles = [f.title for f in suite_pages.figures({"perturbation": found})]
    assert len(titles) == 2
    assert [(t.title, t.section) for t in suite_pages.tables({"perturbation": found})] == [
        ("Cells generated under a perturbation", "Perturbation"),
        ("Change from control cells", "Perturbation"),
    ]
    shown = suite_pages.tables({"perturbation": found})
    assert all("Intervals draw conditions and cells anew. " in t.caption for t in shown)
    assert "–" in shown[0].rows[0][1]
    flagged = {flag.split()[1] for flag in suite_pages.flags({"perturbation": found}) if "perturbation.change:" in flag}
    assert flagged == {"pearson_delta", "spearman_delta", "pearson_delta_top", "spearman_delta_top", "de_overlap"}


def test_no_perturbation_no_suite(context):
    settings = dict(sampling=Sampling(), components=4)
    assert perturbation.perturbation_metrics(context, "test", **settings) is None


def by_condition(corpus, rows: np.ndarray):
    """Rows by condition, with the type and perturbation of each."""
    cells = corpus.cells("test")
    types, names = cells.fields("cell_type")[rows], cells.fields("perturbation")[rows]
    return {
        f"{t} · {p}": (np.flatnonzero((types == t) & (names == p)), t, p) for t, p in sorted(set(zip(types, names)))
    }


def test_changes_by_hand(corpus, repeating):
    """A model that writes other cells: changes are SciPy's, and the moved controls change by the mean shift."""
    rows = treated_rows(corpus)
    context = repeating(np.roll(rows, 7))
    found = perturbation.perturbation_metrics(context, "test", sampling=Sampling(), components=4, max_cells=N)["change"]
    cells, train, n_genes = corpus.cells("test"), corpus.cells("train"), len(corpus.genes)
    real = dense_expression(cells, rows, n_genes)
    lists = sentences_of(cells, np.roll(rows, 7), context.max_genes).lists()
    made = corpus.rank_expressions[0].reconstruct(lists, corpus.genes).toarray()
    x = dense_expression(train, np.arange(len(train)), n_genes).astype(np.float64)
    kinds, given = train.fields("cell_type"), train.fields("perturbation")
    base_of = {t: x[(kinds == t) & (given == "ctrl")].mean(0) for t in set(kinds) - {""}}
    pearsons = {}
    for condition, (own, kind, name) in by_condition(corpus, rows).items():
        there = np.flatnonzero((cells.fields("cell_type") == kind) & (cells.fields("perturbation") == "ctrl"))
        if min(len(own), len(there)) < 2:
            assert condition not in found["pearson_delta_by_condition"]
            continue
        control = dense_expression(cells, there, n_genes)
        true, written = (side[own].mean(0) - control.mean(0) for side in (real, made))
        top = metrics.de_genes(real[own], control)[:50]
        pearsons[condition] = stats.pearsonr(true, written).statistic
        best = stats.spearmanr(true[top], written[top]).statistic
        assert found["spearman_delta_top_by_condition"][condition] == pytest.approx(best, abs=1e-4)
        shared = metrics.de_overlap(real[own], made[own], control, k=50)
        assert found["de_overlap_by_condition"][condition] == shared
        drug = np.flatnonzero((given == name) & (kinds != ""))
        shift = np.mean([x[i] - base_of[kinds[i]] for i in drug], axis=0)
        moved = found["baselines"]["mean_shift"]["pearson_delta_by_condition"][condition]
        assert moved == pytest.approx(stats.pearsonr(true, shift).statistic, abs=1e-3)
    assert len(pearsons) > 5
    assert found["pearson_delta_by_condition"] == pytest.approx(pearsons, abs=1e-4)
    assert found["pearson_delta"] == pytest.approx(np.mean(list(pearsons.values())), abs=1e-4)
    check_intervals(found)


def check_intervals(found: dict) -> None:
    """Each mean of each side lies within its interval; gains are over the conditions that both sides have."""
    sides = {k: v for kind in ("baselines", "references", "scrambles") for k, v in found[kind].items()}
    names = [key for key in found if f"{key}_ci" in found]
    assert len(names) in (3, 5)
    for metric in names:
        own = found[f"{metric}_by_condition"]
        for name, side in {"model": found, **sides}.items():
            low, high = side[f"{metric}_ci"]
            assert low <= side[metric] <= high, (name, metric)
            assert (f"{metric}_gain_ci" in side) == (name != "model")
        for name, side in sides.items():
            low, high = side[f"{metric}_gain_ci"]
            gain = np.mean([own[c] - value for c, value in side[f"{metric}_by_condition"].items()])
            assert low <= gain + 1e-9, (name, metric)
            assert gain - 1e-9 <= high, (name, metric)


class Uncontrolled(Perturbed):
    """Held-out cells of all types but one have no control beside them."""

    def __init__(self, held, split: str = ""):
        self.held, self.split = held, split

    def cells(self, split: str) -> "Uncontrolled":
        return Uncontrolled(self.held.cells(split), split)

    def fields(self, name: str) -> np.ndarray:
        values = super().fields(name)
        alone = (self.split == "test") & (name == "perturbation") & (self.held.fields("cell_type") != "CD19+ B")
        return np.where(alone, "drug", values)


def test_controls_of_training_where_the_split_has_none(context, telling):
    world = telling([], corpus=Uncontrolled(context.corpus))
    found = control_side(world, "test", {"a": ("CD19+ B", "drug"), "b": ("Dendritic", "drug"), "c": ("none", "drug")})
    assert set(found.rows) == {"a", "b"}
    for condition, kind, split in (("a", "CD19+ B", "test"), ("b", "Dendritic", "train")):
        cells = world.corpus.cells(split)
        rows = np.flatnonzero((cells.fields("cell_type") == kind) & (cells.fields("perturbation") == "ctrl"))
        np.testing.assert_array_equal(
            found.expression(condition), dense_expression(cells, rows, len(world.corpus.genes))
        )


class Unsaid(Perturbed):
    """Of every second control cell nobody said what was done to it."""

    def cells(self, split: str) -> "Unsaid":
        return Unsaid(self.held.cells(split))

    def fields(self, name: str) -> np.ndarray:
        values = super().fields(name)
        return np.where(np.arange(len(self)) % 6 == 0, "", values) if name == "perturbation" else values


def test_cells_without_a_perturbation_are_no_controls(context, telling):
    world = telling([], corpus=Unsaid(context.corpus))
    train = world.corpus.cells("train")
    given, kinds = train.fields("perturbation"), train.fields("cell_type")
    assert (given == "").sum() > 50
    np.testing.assert_array_equal(perturbed(world, train), np.isin(given, ["IFN-beta", "drug"]))
    np.testing.assert_array_equal(untreated(world, train), given == "ctrl")
    space = np.zeros((len(train), 1))
    found = training_sides(world, {"a": ("CD19+ B", "drug")}, space)["control_cells"]
    rows = np.flatnonzero((given == "ctrl") & (kinds == "CD19+ B"))
    np.testing.assert_array_equal(found.expression("a"), dense_expression(train, rows, len(world.corpus.genes)))


class Once(Perturbed):
    """One perturbation, and its control."""

    def cells(self, split: str) -> "Once":
        return Once(self.held.cells(split))

    def fields(self, name: str) -> np.ndarray:
        values = super().fields(name)
        return np.where(values == "drug", "IFN-beta", values) if name == "perturbation" else values


def test_of_a_single_perturbation_the_control_is_asked_for(context, repeating):
    world = repeating(treated_rows(Once(context.corpus)), Once(context.corpus))
    found = perturbation.perturbation_metrics(world, "test", sampling=Sampling(), components=4, max_cells=N)
    assert set(found["scrambles"]) == set(found["change"]["scrambles"]) == {"control_name"}
    assert all("ctrl" in p and "IFN-beta" not in p for p in world.sampler.prompts)
    assert any("under the control's name" in flag for flag in suite_pages.flags({"perturbation": found}))
    assert len(suite_pages.figures({"perturbation": found})) == 2


class WithSets(Perturbed):
    """The same with gene sets."""

    @property
    def gene_sets(self) -> list[GeneSet]:
        return [GeneSet(f"set {i}", "", "", np.arange(40 * i, 40 * i + 30, dtype=np.int32), "train") for i in range(2)]

    def cells(self, split: str) -> Perturbed:
        return Perturbed(self.held.cells(split))


def test_distances_in_further_spaces(context, repeating, tmp_path):
    corpus = WithSets(context.corpus)
    folder = write_folder(tmp_path / "scGPT_small", Reference())
    names = [*corpus.genes.names[:60], "<pad>", "<cls>", "<eoc>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (tmp_path / "some.gmt").write_text("\t".join(["FIRST", "", *corpus.genes.names[:90]]))
    rows = treated_rows(corpus)
    more = ["model", str(folder), f"{tmp_path}/some.gmt:FIRST"]
    spaces.check(more)
    world = repeating(rows, corpus)
    settings = dict(sampling=Sampling(), components=8, max_cells=N, more_spaces=more)
    found = perturbation.perturbation_metrics(world, "test", **settings)
    assert list(found["spaces"]) == ["set 0", "set 1", "model", "scGPT_small", "FIRST"]
    cells, n_genes = corpus.cells("test"), len(corpus.genes)
    real, sentences = dense_expression(cells, rows, n_genes), sentences_of(cells, rows, context.max_genes)
    made = corpus.rank_expressions[0].reconstruct(sentences.lists(), corpus.genes).toarray()
    train = dense_expression(corpus.cells("train"), np.arange(len(corpus.cells("train"))), n_genes)
    encoder = load_cell_encoder(folder)

    def subset(genes: np.ndarray):
        pca = PCA(8, random_state=0).fit(train[:, genes])
        return lambda cells: pca.transform(cells[:, genes])

    def scgpt(cells: np.ndarray) -> np.ndarray:
        return encoder.encode(sparse.csr_matrix(cells), corpus.genes.names, [str(i) for i in range(len(cells))])

    ways = {"set 1": subset(np.arange(40, 70)), "FIRST": subset(np.arange(90)), "scGPT_small": scgpt}
    for name, embed in ways.items():
        points = embed(real), embed(made)
        for condition, (own, *_) in by_condition(corpus, rows).items():
            if len(own) >= 2:
                expected = metrics.wasserstein(points[0][own], points[1][own])
                there = found["spaces"][name]["wasserstein_by_condition"][condition]
                assert there == pytest.approx(expected, rel=1e-3)
    model = found["spaces"]["model"]
    # The model reads sentences, and those are the real ones: no distance at all.
    assert model["wasserstein"] == pytest.approx(0, abs=1e-4)
    points = Embedder(context)(sentences)
    own = by_condition(corpus, rows)["Dendritic · drug"][0]
    kinds, given = (corpus.cells("train").fields(name) for name in ("cell_type", "perturbation"))
    others = Cells.stored(world, "train", np.flatnonzero((kinds == "Dendritic") & (given == "drug")))
    drawn = Side.of(others, np.full(len(others), "Dendritic · drug")).at_most({"Dendritic · drug": len(own)}, 0)
    swapped = Embedder(context)(drawn.cells.sentences)
    reference = model["references"]["real_vs_real"]["wasserstein_by_condition"]["Dendritic · drug"]
    assert reference == pytest.approx(metrics.wasserstein(points[own], swapped), rel=1e-3)
    assert model["baselines"]["mean_shift"]["wasserstein"] > 0
    tables = {t.title: t for t in suite_pages.tables({"perturbation": found})}
    assert "Cells generated under a perturbation, in the space set 1" in tables
    assert "the 30 genes of set 1" in tables["Cells generated under a perturbation, in the space set 1"].caption
    assert any(flag.startswith("perturbation.FIRST: scfid") for flag in suite_pages.flags({"perturbation": found}))


def test_combinations_move_by_the_sum_of_their_parts(corpus, repeating):
    """Those whose parts training has."""
    world = repeating(treated_rows(corpus))
    names = {"both": "IFN-beta + drug", "half": "drug + other", "one": "drug", "two": "IFN-beta"}
    conditions = {condition: ("CD19+ B", name) for condition, name in names.items()}
    controls = control_side(world, "test", conditions)
    moved = moved_controls(world, conditions, controls)
    single, summed = moved["mean_shift"], moved["additive"]
    assert list(summed.rows) == ["both"]
    np.testing.assert_allclose(summed.shift["both"], single.shift["one"] + single.shift["two"])
    np.testing.assert_allclose(single.shift["both"], single.shift["half"])  # the mean over all
    assert np.abs(summed.shift["both"] - single.shift["both"]).max() > 0.1


def test_the_sets_that_perturbations_move_most():
    sets = [SimpleNamespace(genes=np.arange(i, i + 4)) for i in range(0, 40, 4)]
    shift = np.zeros(40)
    shift[8:12], shift[36:40], shift[0] = -3, 2, 1
    found = spaces.most_moved(SimpleNamespace(gene_sets=sets), [shift, shift])
    assert found[:3] == [2, 9, 0]
    assert len(found) == spaces.GENE_SETS
    assert spaces.most_moved(SimpleNamespace(gene_sets=sets), []) == list(range(spaces.GENE_SETS))


def test_spaces_that_are_none(tmp_path):
    settings = SimpleNamespace(more_suites=("perturbation",), text_encoder="", more_spaces=("scgtp",))
    with pytest.raises(ValueError, match="more_spaces names 'scgtp', which is neither"):
        suites.check(settings)
    with pytest.raises(ValueError, match="two spaces called A"):
        spaces.check(["a.gmt:A", "b.gmt:A"])
