import numpy as np
import pytest

from c2s_jax.data import MixtureTask
from c2s_jax.data.permute import keys
from c2s_jax.tasks import TASKS

KEYS = keys(0, np.arange(20_000))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(task="annotation"), "unknown task 'annotation'; known: .*cell_type_annotation"),
        (dict(loss="responses"), 'cell_type_annotation: loss=\'responses\' must be "all" or "response"'),
        (dict(gene_order="idf"), 'gene_order=\'idf\' must be "expression" or "tfidf" or "binned"'),
        (dict(genes_drawn="normal"), "genes_drawn='normal' must be"),
        (dict(cells_drawn="normal"), "cells_drawn='normal' must be"),
        (dict(weight=0.0), "weights must be positive"),
        (dict(response_weight=-1.0), "weights must be positive"),
        (dict(temperature=0.0), "temperature=0.0 must be positive"),
        (dict(min_genes=0), "1 <= min_genes <= max_genes"),
        (dict(min_genes=5, max_genes=4), "1 <= min_genes <= max_genes"),
        (dict(max_interactions=0), "max_interactions=0 must be positive"),
        (dict(max_cells=3), "this task shows the cells it needs"),
        (dict(task="tissue_annotation", min_cells=8, max_cells=7), "1 <= min_cells <= max_cells"),
        (dict(task="same_neighbourhood", min_cells=1), "two cells at least"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MixtureTask(**{"task": "cell_type_annotation", **settings})


def test_genes_are_log_uniform():
    kept = MixtureTask("cell_sentence_modelling", min_genes=10, max_genes=999).n_genes(KEYS)
    assert (kept.min(), kept.max()) == (10, 999)
    assert np.mean(kept < 100) == pytest.approx(0.5, abs=0.02)


def test_genes_are_uniform():
    kept = MixtureTask("cell_sentence_modelling", min_genes=10, max_genes=19, genes_drawn="uniform").n_genes(KEYS)
    np.testing.assert_allclose(np.bincount(kept)[10:] / len(kept), 0.1, atol=0.01)


def test_fixed_and_whole():
    fixed = MixtureTask("cell_sentence_modelling", min_genes=7, max_genes=7)
    assert set(fixed.n_genes(KEYS).tolist()) == {7}
    assert MixtureTask("cell_sentence_modelling").n_genes(KEYS).min() > 10**9


def test_cells_of_each_task():
    assert (MixtureTask("tissue_annotation").min_cells, MixtureTask("tissue_annotation").max_cells) == (5, 20)
    assert set(MixtureTask("tissue_annotation").n_cells(KEYS).tolist()) == set(range(5, 21))
    changed = MixtureTask("tissue_annotation", max_cells=3)
    assert (changed.min_cells, changed.max_cells) == (3, 3)
    assert MixtureTask("tissue_annotation", min_cells=30).max_cells == 30
    for task in TASKS:
        assert (MixtureTask(task).min_cells, MixtureTask(task).max_cells) == TASKS[task].cells
