"""Cells drawn by group, of which most express no gene of the model."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from c2s_jax.cells import CellDataError, GeneVocabulary
from c2s_jax.inference.contexts import draw_contexts
from c2s_jax.inference.reading import CellReader

USABLE = np.flatnonzero(np.arange(300) % 12 == 5)  # 25 of 300


@pytest.fixture
def sparse_cells() -> ad.AnnData:
    counts = np.zeros((300, 2), np.float32)
    counts[:, 1], counts[USABLE, 0] = 1, 2
    obs = pd.DataFrame({"group": "one"}, index=[f"cell {i}" for i in range(300)])
    return ad.AnnData(counts, obs, pd.DataFrame(index=["CD3D", "UNKNOWN"]))


def drawn(cells: ad.AnnData, **asked) -> list[list[int]]:
    reader = CellReader(cells, GeneVocabulary(["CD3D"]))
    return [context.rows.tolist() for context in draw_contexts(cells, reader, "group", **asked)]


@pytest.mark.parametrize("seed", range(3))
def test_as_many_cells_as_asked_where_the_group_has_them(sparse_cells, seed):
    (found,) = drawn(sparse_cells, n_cells=10, seed=seed)
    assert len(set(found)) == 10
    assert np.isin(found, USABLE).all()
    (more,) = drawn(sparse_cells, n_cells=20, seed=seed)
    assert more[:10] == found
    assert [len(rows) for rows in drawn(sparse_cells, n_cells=8, n_contexts=5, seed=seed)] == [8, 8, 8]


def test_a_group_with_fewer_cells_gives_all(sparse_cells):
    (found,) = drawn(sparse_cells, n_cells=40)
    assert sorted(found) == USABLE.tolist()


def test_a_group_without_any_is_named(sparse_cells):
    rest = sparse_cells[np.setdiff1d(np.arange(300), USABLE)].copy()
    with pytest.raises(CellDataError, match="no cell of group='one' expresses a gene"):
        drawn(rest, n_cells=2)
