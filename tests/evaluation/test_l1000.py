"""Responses pair by pair, on real cells with perturbations that they did not have."""

import numpy as np
import pytest
from scipy import stats

from c2s_jax.evaluation import controls, l1000, suite_pages
from c2s_jax.evaluation.context import dense_expression, sentences_of
from c2s_jax.evaluation.profiles import training_profiles
from c2s_jax.generation import Sampling

N = 24


@pytest.fixture
def measured(corpus, repeating):
    """Function that measures a model which answers the sentences of some cells, the same whatever it is asked."""
    pairs = l1000.pairs_of(corpus, "test", N, 0)

    def measure(rows: np.ndarray, **settings):
        asked = repeating(rows)
        found = l1000.l1000_metrics(asked, "test", sampling=Sampling(), max_pairs=N, **settings)
        return found, asked.sampler.prompts

    return pairs, measure


def test_pairs_are_of_one_type(corpus):
    pairs, cells = l1000.pairs_of(corpus, "test", N, 0), corpus.cells("test")
    types, names = cells.fields("cell_type"), cells.fields("perturbation")
    assert len(set(pairs.treated.tolist())) == len(pairs.treated) == N
    assert (types[pairs.treated] == types[pairs.control]).all()
    assert set(names[pairs.control]) == {"ctrl"}
    assert "ctrl" not in names[pairs.treated]
    drawn = [l1000.pairs_of(corpus, "test", 5, seed).treated.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_scores_by_hand(context, corpus, measured):
    """A model that writes the control again: its scores are SciPy's, and no name makes a difference."""
    pairs, measure = measured
    found, prompts = measure(pairs.control)
    cells, n_genes = corpus.cells("test"), len(corpus.genes)
    treated, control = (dense_expression(cells, rows, n_genes) for rows in (pairs.treated, pairs.control))
    taus, pearsons, deltas, copies = [], [], [], []
    line = corpus.rank_expressions[0]
    for t, c, genes in zip(treated, control, sentences_of(cells, pairs.control, context.max_genes).lists()):
        order = np.full(n_genes, -len(genes))
        order[genes] = -np.arange(len(genes))
        written = line.reconstruct([genes], corpus.genes).toarray()[0]
        taus.append(stats.kendalltau(order, t).statistic)
        pearsons.append(stats.pearsonr(written, t).statistic)
        deltas.append(stats.pearsonr(written - c, t - c).statistic)
        copies.append(stats.kendalltau(c, t).statistic)
    assert found["tau"] == pytest.approx(np.mean(taus), abs=1e-6)
    assert found["pearson"] == pytest.approx(np.mean(pearsons), abs=1e-5)
    assert found["pearson_delta"] == pytest.approx(np.mean(deltas), abs=1e-5)
    assert found["tau_ci"][0] < found["tau"] < found["tau_ci"][1]
    assert found["baselines"]["control"]["tau"] == pytest.approx(np.mean(copies), abs=1e-6)
    assert found["baselines"]["control"]["pearson_delta"] == 0
    assert (found["n"], found["genes"], found["valid"], found["unseen"]) == (N, n_genes, 1.0, 0.0)
    assert set(found["tau_by_perturbation"]) == {"IFN-beta", "drug"}
    # Names of other perturbations were asked for, the answers were the same, and that is flagged.
    names = cells.fields("perturbation")[pairs.treated]
    assert all(name not in prompt for name, prompt in zip(names, prompts))
    assert found["scrambles"]["shuffled_perturbations"]["tau_gain_ci"] == [0, 0]
    assert set(controls.unbeaten(found, found["scrambles"])) == {"tau", "spearman", "pearson", "pearson_delta"}
    assert any("l1000: tau" in flag for flag in suite_pages.flags({"l1000": found}))
    table = suite_pages.tables({"l1000": found})[0]
    assert table.section == "L1000"
    assert "the control itself" in [row[0] for row in table.rows]


def test_the_right_answer_is_above_everything_else(corpus, measured, tmp_path):
    pairs, measure = measured
    file = tmp_path / "landmarks.txt"
    file.write_text("\n".join(corpus.genes.names[:200]))
    found, _ = measure(pairs.treated, genes=str(file))
    own = found["references"]["real_through_its_sentence"]
    assert found["genes"] == 200
    assert {k: found[k] for k in l1000.SCORES} == pytest.approx({k: own[k] for k in l1000.SCORES})
    assert set(found["baselines"]) == {"control", "perturbation_mean", "cell_line_mean", "mean_shift"}
    for side in (*found["baselines"].values(), found["references"]["real_vs_real"]):
        assert side["tau"] < found["tau"]
        assert side["pearson_delta"] < found["pearson_delta"]
    assert all(side["tau_gain_ci"][0] > 0 for side in found["baselines"].values())


def test_training_profiles(context, corpus):
    cells, n_genes = corpus.cells("train"), len(corpus.genes)
    x = dense_expression(cells, np.arange(len(cells)), n_genes).astype(np.float64)
    types, names = cells.fields("cell_type"), cells.fields("perturbation")
    treated = names != "ctrl"
    found = training_profiles(cells, treated, ~treated, n_genes)
    kind = "Dendritic"
    drug, here = names == "drug", types == kind
    np.testing.assert_allclose(found.perturbation.of(np.array(["drug"]))[0], x[drug].mean(0), atol=1e-6)
    np.testing.assert_allclose(found.line.of(np.array([kind]))[0], x[treated & here].mean(0), atol=1e-6)
    np.testing.assert_allclose(found.perturbation.of(np.array(["new"]))[0], x[treated].mean(0), atol=1e-6)
    base = np.stack([x[~treated & (types == t)].mean(0) for t in types[drug]])
    np.testing.assert_allclose(found.shift.of(np.array(["drug"]))[0], (x[drug] - base).mean(0), atol=1e-6)
    assert found.perturbation.knows(np.array(["drug", "ctrl", "new"])).tolist() == [True, False, False]


def test_no_pairs_no_suite(context):
    assert l1000.l1000_metrics(context, "test", sampling=Sampling(), max_pairs=4) is None
    with pytest.raises(ValueError, match="names 1 gene"):
        l1000.l1000_metrics(context, "test", sampling=Sampling(), genes=context.corpus.genes.names[0], max_pairs=4)
