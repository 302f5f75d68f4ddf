"""Runs side by side: rows by run, the best bold, what cannot be compared refused."""

import copy
import json

import pytest

from c2s_jax.evaluation import beside

BASE = {
    "annotation": {"accuracy": 0.8, "macro_f1": 0.7, "unparsed": 0.0, "n": 140, "calibration": {"ece": 0.1}}
    | {"baselines": {"majority": {"accuracy": 0.4, "macro_f1": 0.1}}},
    "embedding": {"knn_accuracy": 0.9, "silhouette": 0.2, "n": 140, "baselines": {}}
    | {"scrambles": {"shuffled_genes": {"knn_accuracy": 0.95}}},
    "spatial": {"same_niche": {"accuracy": 0.6, "macro_f1": 0.6, "n": 20, "baselines": {}, "scrambles": {}}},
    "split": "test",
    "cells": 140,
    "flags": ["embedding: flagged"],
}


@pytest.fixture
def runs(tmp_path):
    """Function that writes runs with changed metrics, and gives their folders."""

    def make(**changed):
        folders = []
        for name, change in changed.items():
            metrics = copy.deepcopy(BASE)
            change(metrics)
            (tmp_path / name).mkdir()
            (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
            folders.append(str(tmp_path / name))
        return folders

    return make


def better(metrics):
    metrics["annotation"]["accuracy"] = 0.85
    metrics["flags"] = []
    del metrics["spatial"]


def test_a_row_a_run_and_the_best_bold(runs, tmp_path):
    found = beside.read_runs(runs(small=lambda m: None, large=better))
    tables = {t.title: t for t in beside.tables(found)}
    assert list(tables) == ["Cell type annotation", "Embedding of held-out cells"]  # only one has spatial tasks
    table = tables["Cell type annotation"]
    assert [row[0] for row in table.rows] == ["small", "large", "majority answer"]
    assert (1, 1) in table.best
    assert (0, 1) not in table.best
    assert table.rows[1][-1] == "0.100"  # ECE
    assert tables["Embedding of held-out cells"].rows[0][0] == "small ⚑ knn_accuracy"
    page = beside.write(tmp_path / "beside.html", found).read_text()
    assert "Red flags of small" in page
    assert "embedding: flagged" in page
    assert "the same 140 held-out cells" in page


def test_what_cannot_be_compared(runs, tmp_path):
    def other(metrics):
        metrics["split"] = "validation"

    def fewer(metrics):
        metrics["annotation"]["n"] = 20

    a, b, c = runs(a=lambda m: None, b=other, c=fewer)
    with pytest.raises(ValueError, match="a and b cannot be compared: held-out split test and validation"):
        beside.read_runs([a, b])
    with pytest.raises(ValueError, match="a and c cannot be compared: held-out cells of annotation 140 and 20"):
        beside.read_runs([a, c])
    with pytest.raises(ValueError, match="is given twice"):
        beside.read_runs([a, a])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no metrics.json; evaluate it first"):
        beside.read_runs([a, str(tmp_path / "empty")])
