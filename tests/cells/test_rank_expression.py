import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from c2s_jax.cells import (
    CellDataError,
    RankExpression,
    cell_sentences,
    expression_matrix,
    fit_rank_expression,
    rank_cells,
)

LINE = RankExpression(slope=-1.0, intercept=2.0, r2=1, r2_all=1, n=2, pearson=1, spearman=1, n_all=2)


def by_hand(dense, limit=3.0):
    """Ranks of each cell, from 0, by a full sort; scikit-learn's fit and R², SciPy's correlations."""
    x, y = [], []
    for row in dense:
        values = np.sort(row[row > 0])[::-1].astype(np.float64)
        x.append(np.log10(1 + np.arange(len(values))))
        y.append(values)
    x, y = np.concatenate(x)[:, None], np.concatenate(y)
    inside = x[:, 0] < limit
    line = LinearRegression().fit(x[inside], y[inside])
    return {
        "slope": line.coef_[0],
        "intercept": line.intercept_,
        "r2": r2_score(y[inside], line.predict(x[inside])),
        "r2_all": r2_score(y, line.predict(x)),
        "n": inside.sum(),
        "n_all": len(y),
        "pearson": stats.pearsonr(y, line.predict(x)).statistic,
        "spearman": stats.spearmanr(y, line.predict(x)).statistic,
    }


def test_fit_on_real_cells(pbmc):
    expected = by_hand(pbmc.raw.X.toarray() / np.log(10))
    fit = fit_rank_expression(pbmc, use_raw=True)
    assert {k: getattr(fit, k) for k in expected} == pytest.approx(expected, rel=1e-5)
    assert fit.slope < 0
    assert fit.r2 > 0.9


@pytest.mark.parametrize("limit", [3.0, 1.5])
def test_entries_beyond_the_range_count_only_in_r2_all(limit):
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(0.6, 0.05, (12, 2500)).astype(np.float32)
    cells = ad.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=[f"G{i}" for i in range(2500)]))
    expected = by_hand(np.log10(1 + counts / counts.sum(1, keepdims=True) * np.median(counts.sum(1))), limit)
    fit = fit_rank_expression(cells, max_log_rank=limit)
    assert fit.n < fit.n_all
    assert {k: getattr(fit, k) for k in expected} == pytest.approx(expected, rel=1e-4)
    assert fit.max_log_rank == limit


def test_the_first_gene_has_rank_zero():
    values = 2.0 - 0.5 * np.log10(1 + np.arange(6))
    fit = fit_rank_expression(
        rank_cells(sparse.csr_matrix(np.vstack([values, values[::-1]])), ["a", "b"], list("ABCDEF"))
    )
    assert (fit.slope, fit.intercept) == pytest.approx((-0.5, 2.0))
    assert (fit.r2, fit.r2_all, fit.pearson, fit.spearman) == pytest.approx((1, 1, 1, 1))
    assert fit.n == fit.n_all == 12


def test_sources_agree_and_a_draw_of_cells_is_keyed(pbmc):
    cells = expression_matrix(pbmc, use_raw=True)
    whole = fit_rank_expression(pbmc, use_raw=True)
    assert fit_rank_expression(cells) == whole
    assert fit_rank_expression(cells.rank()) == whole
    assert fit_rank_expression(cells, max_cells=700) == whole
    drawn = fit_rank_expression(cells, max_cells=100)
    assert drawn.n < whole.n
    assert drawn == fit_rank_expression(cells, max_cells=100)
    assert drawn != fit_rank_expression(cells, max_cells=100, seed=1)


def test_nothing_to_fit():
    flat = rank_cells(sparse.csr_matrix(np.ones((3, 4), np.float32)), list("abc"), list("ABCD"))
    single = rank_cells(sparse.csr_matrix(np.eye(3, dtype=np.float32)), list("abc"), list("ABC"))
    for ranked in (flat, single, single.top(1)):
        with pytest.raises(CellDataError, match="cannot be related"):
            fit_rank_expression(ranked)


def test_to_dict_round_trip():
    assert RankExpression(**LINE.to_dict()) == LINE


def test_expression_is_the_line_clipped_at_zero():
    found = LINE.expression([0, 9, 99, 999])
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([2, 1, 0, 0])


def test_reconstruct_takes_ids_names_and_sentences():
    genes = ["CD3D", "LYZ", "MS4A1", "GNLY"]
    expected = np.zeros((3, 4), np.float32)
    expected[0, [3, 0, 1]] = LINE.expression([0, 1, 2])
    expected[2, 2] = 2
    for cells in (
        [np.array([3, 0, 1]), np.array([], int), np.array([2])],
        [["gnly", "CD3D", "LYZ"], [], ["MS4A1"]],
        ["GNLY CD3D FOO LYZ.", "", "ms4a1"],
    ):
        found = LINE.reconstruct(cells, genes)
        assert found.dtype == np.float32
        assert found.has_canonical_format
        assert found.nnz == 4
        np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    assert LINE.reconstruct([], genes).shape == (0, 4)


def test_reconstruct_does_not_store_clipped_zeros():
    found = LINE.reconstruct([np.arange(150)], [f"G{i}" for i in range(150)])
    assert found.nnz == 99
    assert found.data.min() > 0


def test_real_cells_through_their_sentences(pbmc):
    cells = expression_matrix(pbmc, use_raw=True)
    fit = fit_rank_expression(cells)
    sentences = cell_sentences(pbmc, use_raw=True)
    found = fit.reconstruct(sentences, cells.genes)
    np.testing.assert_array_equal(found.toarray(), fit.reconstruct(cells.rank(), cells.genes).toarray())
    dense, truth = found.toarray(), cells.matrix.toarray()
    np.testing.assert_array_equal(dense > 0, truth > 0)
    for i in (0, 350, 699):
        for rank, gene in enumerate(sentences[i].split()):
            value = fit.intercept + fit.slope * np.log10(1 + rank)
            assert dense[i, cells.genes.index[gene]] == pytest.approx(value, rel=1e-5)
    assert r2_score(truth[truth > 0], dense[truth > 0]) == pytest.approx(fit.r2_all, abs=1e-4)


def test_reconstruct_leaves_ranked_cells_alone():
    ranked = rank_cells(sparse.csr_matrix([[1.0, 2.0, 3.0]]), ["a"], list("ABC"))
    LINE.reconstruct(ranked, list("ABC"))
    assert ranked.genes.tolist() == [2, 1, 0]


def test_bad_cells():
    with pytest.raises(CellDataError, match="cell 1 has gene id 4, but the vocabulary has 2 genes"):
        LINE.reconstruct([[0], [1, 4]], ["A", "B"])
    with pytest.raises(CellDataError, match="cell 0 has gene id -1"):
        LINE.reconstruct([[-1]], ["A", "B"])
    with pytest.raises(CellDataError, match="cell 1 has gene B more than once"):
        LINE.reconstruct([[0], [1, 0, 1]], ["A", "B"])
    with pytest.raises(CellDataError, match=r"not in the vocabulary.*FOO"):
        LINE.reconstruct([["A", "FOO"]], ["A", "B"])
    with pytest.raises(CellDataError, match="into a list"):
        LINE.reconstruct("A B", ["A", "B"])
