"""The further suites on real cells, with models that answer as told and embeddings that are known."""

import dataclasses
import json
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from c2s_jax.evaluation import beside, bulk, controls, embedding_suite, suite_pages, suites
from c2s_jax.evaluation.context import dense_expression, ranked, sentences_of, some_of
from c2s_jax.evaluation.store import Store, weights_fingerprint
from c2s_jax.report.tables import MEASURES


class Deaf:
    """An embedder that does not read."""

    def __init__(self, context):
        self.rng = np.random.default_rng(0)

    def __call__(self, sentences):
        return self.rng.normal(size=(len(sentences), 4))


class Reader:
    """An embedder that reads everything: genes weighted by their place."""

    def __init__(self, context):
        self.n = len(context.corpus.genes)

    def __call__(self, sentences):
        out = np.zeros((len(sentences), self.n))
        for row, genes in zip(out, sentences.lists()):
            row[genes] = 1 / np.log2(2 + np.arange(len(genes)))
        return out


def labelled(context, split: str) -> tuple[np.ndarray, np.ndarray]:
    cells = context.corpus.cells(split)
    rows = np.flatnonzero(cells.fields("cell_type") != "")
    return dense_expression(cells, rows, len(context.corpus.genes)), cells.fields("cell_type")[rows]


def test_embedding_beside_its_baseline_and_scrambles(context, monkeypatch, tmp_path):
    monkeypatch.setattr(embedding_suite, "Embedder", Reader)
    found = embedding_suite.embedding_metrics(context, "test", k=5, components=16, folder=str(tmp_path))
    (train, train_labels), (test, test_labels) = labelled(context, "train"), labelled(context, "test")
    pca = PCA(16, random_state=0).fit(train)
    oracle = KNeighborsClassifier(5, algorithm="brute").fit(pca.transform(train), train_labels)
    baseline = found["baselines"]["pca"]
    assert baseline["knn_accuracy"] == pytest.approx(oracle.score(pca.transform(test), test_labels), abs=0.01)
    assert baseline["silhouette"] == pytest.approx(silhouette_score(pca.transform(test), test_labels), abs=1e-5)
    assert found["n"] == len(test_labels)
    exported = anndata.read_h5ad(tmp_path / "scib_metrics.h5ad")
    np.testing.assert_allclose(exported.obsm["X_pca"], pca.transform(test), atol=1e-4)
    assert exported.obs["cell_type"].tolist() == test_labels.tolist()
    assert "batch_mixing" not in found  # one data set, one batch
    scrambles = found["scrambles"]
    assert scrambles["shuffled_labels"]["knn_accuracy"] < 0.35 < scrambles["shuffled_genes"]["knn_accuracy"]
    assert scrambles["shuffled_genes"]["knn_accuracy"] < found["knn_accuracy"]
    assert controls.unbeaten(found, scrambles) == {}


def test_embedding_of_some_cells_from_all_over_the_splits(context, monkeypatch):
    read = []

    class Keeping(Reader):
        def __call__(self, sentences):
            read.append(sentences.genes.tolist())
            return super().__call__(sentences)

    monkeypatch.setattr(embedding_suite, "Embedder", Keeping)
    found = embedding_suite.embedding_metrics(context, "test", k=5, components=4, max_cells=50)
    assert found["n"] == 50
    for split, genes in zip(("train", "test"), read):
        cells = context.corpus.cells(split)
        rows = some_of(np.flatnonzero(cells.fields("cell_type") != ""), 50)
        assert genes == sentences_of(cells, rows, context.max_genes).genes.tolist()


def test_an_embedding_of_noise_is_flagged(context, monkeypatch):
    monkeypatch.setattr(embedding_suite, "Embedder", Deaf)
    found = embedding_suite.embedding_metrics(context, "test", k=5, components=4)
    flags = suite_pages.flags({"embedding": found, "seconds": {"training": 1.0}, "split": "test"})
    assert any("does not beat" in flag for flag in flags)
    table = suite_pages.tables({"embedding": found})[0]
    assert 'class="flag"' in "".join(map(str, table.rows[0]))
    assert 'class="flag"' not in "".join(str(x) for row in table.rows[1:] for x in row)


def test_cells_find_their_bulk(context, monkeypatch):
    monkeypatch.setattr(bulk, "Embedder", Reader)
    found = bulk.bulk_metrics(context, "train", components=16)
    assert found["groups"] >= 5
    assert found["n"] == 10 * found["groups"]
    assert found["foscttm"] < 0.25
    assert found["scrambles"]["shuffled_pairs"]["foscttm"] == pytest.approx(0.45, abs=0.12)
    assert controls.unbeaten(found, found["scrambles"]) == {}
    assert bulk.bulk_metrics(context, "test", components=4, cells_per_bulk=60) is None


def test_bulk_is_the_mean_on_the_linear_scale(context):
    expression, labels = labelled(context, "train")
    rows = expression[labels == "CD14+ Monocyte"]
    profile = bulk._bulk(rows)
    np.testing.assert_allclose(10**profile - 1, np.mean(10.0**rows - 1, axis=0), rtol=1e-4, atol=1e-5)
    order = ranked(profile[None], 20).lists()[0]
    assert len(order) == 20
    assert (np.diff(profile[order]) <= 0).all()


def test_foscttm_of_bulk_by_hand(context):
    rng = np.random.default_rng(0)
    cells, samples, partner = rng.normal(size=(12, 5)), rng.normal(size=(3, 5)), np.repeat(np.arange(3), 4)
    distance = cdist(cells, samples[partner], "cosine")
    closer = (distance < np.diag(distance)[:, None]) & (partner[:, None] != partner)
    assert bulk._foscttm(cells, samples, partner)["foscttm_cells_to_bulk"] == pytest.approx(closer.mean())


@pytest.mark.parametrize("metric", MEASURES)
def test_whatever_is_ranked_is_flagged(metric):
    up = 0.1 if MEASURES[metric].better == "higher" else -0.1
    for score, found in ((0.5, [metric]), (0.5 + up, [metric]), (0.5 - up, [])):
        assert list(controls.unbeaten({metric: 0.5}, {"shuffled_labels": {metric: score}})) == found


def test_means_over_fewer_conditions_are_not_ranked():
    """The sum of parts, of easy conditions only, has the lowest mean and is worse than the model wherever it is."""

    def side(values: dict[str, float]) -> dict:
        return {"scfid": sum(values.values()) / len(values), "scfid_by_condition": values}

    model, additive = {"one": 10.0, "two": 10.0, "both": 2.0}, {"both": 3.5}
    shift = {condition: value + 3 for condition, value in model.items()}
    baselines = {"additive": side(additive), "mean_shift": side(shift)}
    found = side(model) | {"n": 9, "baselines": baselines, "scrambles": {"control_name": side(additive)}}
    (table,) = suite_pages.tables({"perturbation": found})
    names = [
        "c2s_jax",
        "control + mean changes under the parts of the combination (1 of 3 conditions)",
        "control + mean change under the perturbation",
        "control cells asked for (shuffled) (1 of 3 conditions)",
    ]
    assert [row[0] for row in table.rows] == names
    assert table.best == {(0, 1)}
    assert "never bold" in table.caption
    metrics = {"perturbation": found, "split": "test", "cells": 9}
    (table,) = beside.tables({"first": metrics, "second": metrics})
    assert [row[0] for row in table.rows][2:] == names[1:3]
    assert table.best == {(0, 1), (1, 1)}


def test_unknown_suites_are_refused():
    suites.check(SimpleNamespace(more_suites=("embedding", "bulk")))
    with pytest.raises(ValueError, match="names imbedding; there are embedding, bulk, perturbation"):
        suites.check(SimpleNamespace(more_suites=("imbedding",)))


def test_store_goes_on_where_it_was(tmp_path):
    made = []

    def make() -> dict:
        made.append(1)
        return {"scfid": np.float32(0.5), "n": np.arange(2)}

    first = Store(tmp_path / "evaluation", {"seed": 0, "steps": (1, 2)})
    assert first("embedding", make) == {"scfid": 0.5, "n": [0, 1]}
    assert Store(tmp_path / "evaluation", {"seed": 0, "steps": [1, 2]})("embedding", make) == first("embedding", make)
    assert len(made) == 1
    Store(tmp_path / "evaluation", {"seed": 1, "steps": [1, 2]})("embedding", make)
    assert len(made) == 2
    path = tmp_path / "evaluation" / "embedding.json"
    path.write_text(path.read_text()[:20])
    Store(tmp_path / "evaluation", {"seed": 1, "steps": [1, 2]})("embedding", make)
    assert len(made) == 3
    assert json.loads(path.read_text())["found"]["scfid"] == 0.5


def test_other_weights_have_another_fingerprint(context):
    import jax

    same = weights_fingerprint(context.params)
    assert same == weights_fingerprint(jax.tree.map(lambda x: x + 0, context.params))
    changed = jax.tree.map(lambda x: x * 1.001, context.params)
    assert same != weights_fingerprint(dataclasses.replace(context, params=changed).params)
