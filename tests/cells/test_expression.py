import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from c2s_jax.cells import CellDataError, cell_sentences, expression_matrix, require_obs

GENES = ["Cd3d", "LYZ", "MS4A1", "GNLY"]
COUNTS = np.array([[5, 0, 1, 2], [0, 3, 3, 0], [1, 1, 0, 8]], np.float32)


def small(x=COUNTS, genes=GENES, **kwargs) -> ad.AnnData:
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(x.shape[0])])
    return ad.AnnData(x.copy(), obs=obs, var=pd.DataFrame(index=genes), **kwargs)


def many_counts(cells=200, genes=60, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    depth = rng.lognormal(0, 0.5, (cells, 1))
    return rng.poisson(depth * rng.lognormal(0, 1.2, genes)).astype(np.float32) + np.eye(cells, genes, dtype=np.float32)


def expected_log10(counts, target):
    return np.log10(1 + counts / counts.sum(1, keepdims=True) * target)


# formats


@pytest.mark.parametrize(
    "form",
    [
        np.asarray,
        np.asfortranarray,
        sparse.csr_matrix,
        sparse.csc_matrix,
        sparse.csr_array,
        sparse.csc_array,
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint8),
        lambda x: sparse.csr_matrix(x.astype(np.float64)),
    ],
)
def test_any_format_gives_the_same_expression(form):
    found = expression_matrix(small(form(COUNTS)))
    assert found.matrix.dtype == np.float32
    assert found.matrix.format == "csr"
    assert found.matrix.has_canonical_format
    assert found.matrix.nnz == np.count_nonzero(COUNTS)
    np.testing.assert_allclose(found.matrix.toarray(), expected_log10(COUNTS, 8), rtol=1e-6)
    assert found.genes.names == ("CD3D", "LYZ", "MS4A1", "GNLY")
    assert found.cell_ids.tolist() == ["cell0", "cell1", "cell2"]
    assert found.rows.tolist() == [0, 1, 2]
    assert found.scale == "counts"
    assert found.target_sum == 8
    assert found.log10


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("source", [{}, {"use_raw": True}, {"layer": "counts"}])
def test_backed_files(tmp_path, form, source):
    cells = small(form(COUNTS))
    cells.raw = cells
    cells.layers["counts"] = form(COUNTS)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert backed.isbacked
    expected = expression_matrix(cells)
    np.testing.assert_array_equal(expression_matrix(backed, **source).matrix.toarray(), expected.matrix.toarray())
    part = expression_matrix(backed[[2, 0]], target_sum=8, **source)
    np.testing.assert_array_equal(part.matrix.toarray(), expected.matrix.toarray()[[2, 0]])


def test_views_and_permuted_cells():
    cells = small(sparse.csr_matrix(COUNTS))
    expected = expression_matrix(cells, target_sum=100.0).matrix.toarray()
    view = expression_matrix(cells[[2, 0], ["GNLY", "Cd3d", "LYZ", "MS4A1"]], target_sum=100.0)
    np.testing.assert_array_equal(view.matrix.toarray(), expected[np.ix_([2, 0], [3, 0, 1, 2])])
    assert cell_sentences(cells[[2, 0]]) == [cell_sentences(cells)[i] for i in (2, 0)]


def test_the_callers_matrix_is_not_changed():
    data, columns = np.array([2.0, 0.0, 1.0, 1.0], np.float32), np.array([2, 1, 0, 0])
    matrix = sparse.csr_matrix((data, columns, np.array([0, 4])), (1, 4))
    cells = small(matrix)
    found = expression_matrix(cells)
    found.matrix.data[:] = 9
    found.matrix.indices[:] = 0
    assert cells.X.nnz == 4
    assert cells.X.indices.tolist() == [2, 1, 0, 0]
    assert cells.X.data.tolist() == [2, 0, 1, 1]
    assert set(cell_sentences(cells)[0].split()) == {"CD3D", "MS4A1"}
    canonical = small(sparse.csr_matrix(COUNTS))
    found = expression_matrix(canonical)
    found.matrix.indices[:] = 0
    np.testing.assert_array_equal(canonical.X.toarray(), COUNTS)


# choice of source


def test_raw_and_layers():
    cells = small(COUNTS - 1)
    cells.layers["counts"] = COUNTS
    wide = small(np.hstack([COUNTS, COUNTS]), [*GENES, "A", "B", "C", "D"])
    cells.raw = wide
    assert cell_sentences(cells, layer="counts") == cell_sentences(small())
    assert len(expression_matrix(cells, use_raw=True).genes) == 8
    with pytest.raises(CellDataError) as error:
        expression_matrix(cells)
    message = str(error.value)
    assert "adata.X holds 4 negative values (first: -1 in cell 'cell0' (row 0), gene 'LYZ')" in message
    assert "scaled" in message
    assert "usable instead: adata.raw (use_raw=True) or adata.layers['counts'] (layer='counts')" in message


def test_only_usable_alternatives_are_named():
    cells = small(COUNTS - 1)
    cells.layers["bad"] = COUNTS * np.nan
    with pytest.raises(CellDataError, match=r"neither adata\.X nor adata\.raw nor any layer is usable"):
        expression_matrix(cells)
    cells.layers["good"] = COUNTS
    with pytest.raises(CellDataError, match=r"usable instead: adata.layers\['good'\] \(layer='good'\)$"):
        expression_matrix(cells, layer="bad")


def test_scaled_real_cells_point_at_raw(pbmc):
    with pytest.raises(CellDataError, match=r"397164 negative values .* usable instead: adata.raw \(use_raw=True\)"):
        expression_matrix(pbmc)


def test_absent_sources():
    cells = small()
    cells.layers["counts"] = COUNTS
    with pytest.raises(CellDataError, match=r"no 'count' \(nearest: 'counts'\); layers there are: counts"):
        expression_matrix(cells, layer="count")
    with pytest.raises(CellDataError, match=r"adata.raw is empty; usable instead: adata.X .* or adata.layers"):
        expression_matrix(cells, use_raw=True)
    with pytest.raises(CellDataError, match="choose one"):
        expression_matrix(cells, layer="counts", use_raw=True)
    cells.X = None
    with pytest.raises(CellDataError, match=r"adata.X is empty; usable instead: adata.layers\['counts'\]"):
        expression_matrix(cells)


@pytest.mark.parametrize(("bad", "what"), [(np.nan, "NaN"), (np.inf, "infinite"), (-2, "negative")])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_values_that_are_no_expression_are_located(bad, what, form):
    x = COUNTS.copy()
    x[1, 2] = bad
    with pytest.raises(CellDataError, match=rf"1 {what} values \(first: {bad} in cell 'cell1' \(row 1\), gene 'MS4A1'"):
        expression_matrix(small(form(x)))


def test_nothing_to_read():
    with pytest.raises(CellDataError, match="no expressed gene in any cell"):
        expression_matrix(small(COUNTS * 0))
    with pytest.raises(CellDataError, match="0 cells and 4 genes"):
        expression_matrix(small()[:0])
    with pytest.raises(CellDataError, match="no numbers"):
        expression_matrix(small(COUNTS.astype(str).astype(object)))


# gene names


def ensembl(n=4):
    return [f"ENSG{i:011d}" for i in range(n)]


def test_ensembl_names_use_a_symbol_column():
    cells = small(genes=ensembl())
    cells.var["Feature_Name"] = pd.Categorical(["CD3D", "lyz", None, "GNLY"])
    found = expression_matrix(cells)
    assert found.genes.names == ("CD3D", "LYZ", "ENSG00000000002", "GNLY")
    assert any("symbols are taken from var['Feature_Name']" in line for line in found.report)
    assert any("1 genes without a symbol" in line and "ENSG00000000002" in line for line in found.report)


def test_ensembl_names_without_symbols_stop():
    cells = small(genes=ensembl())
    cells.var["gene_symbols"] = ensembl()
    cells.var["weird"] = GENES
    with pytest.raises(CellDataError, match=r"Ensembl identifiers \(ENSG.*columns: gene_symbols, weird.*gene_column"):
        expression_matrix(cells)
    assert expression_matrix(cells, gene_column="weird").genes.names[0] == "CD3D"
    with pytest.raises(CellDataError, match=r"no column 'symbol' \(gene_column\); columns there are: gene_symbols"):
        expression_matrix(cells, gene_column="symbol")


def test_versioned_mouse_identifiers_are_ensembl_too():
    with pytest.raises(CellDataError, match="Ensembl"):
        expression_matrix(small(genes=[f"ENSMUSG0000000000{i}.{i}" for i in range(4)]))


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_equal_names_stop_or_are_summed():
    cells = small(genes=["TBCE", "LYZ", "TBCE", "LYZ"])
    with pytest.raises(
        CellDataError, match=r"2 gene names occur more than once: TBCE \(2×\), LYZ \(2×\).*duplicates='sum'"
    ):
        expression_matrix(cells)
    found = expression_matrix(cells, duplicates="sum")
    assert found.genes.names == ("TBCE", "LYZ")
    summed = COUNTS[:, :2] + COUNTS[:, 2:]
    np.testing.assert_allclose(found.matrix.toarray(), expected_log10(summed, 8), rtol=1e-6)
    assert any("added up" in line for line in found.report)


def test_upper_case_collisions_name_both_genes():
    cells = small(genes=["Gm1", "LYZ", "GM1", "GNLY"])
    with pytest.raises(CellDataError, match=r"1 gene names become equal when upper-cased: GM1 \(Gm1, GM1\)"):
        expression_matrix(cells)
    assert expression_matrix(cells, duplicates="sum").genes.names == ("GM1", "LYZ", "GNLY")


def test_sums_of_small_integers_do_not_overflow():
    cells = small(np.array([[200, 200, 100]], np.uint8), genes=["a", "A", "b"])
    found = expression_matrix(cells, duplicates="sum", target_sum=500)
    np.testing.assert_allclose(found.matrix.toarray(), np.log10([[401, 101]]), rtol=1e-6)


def test_logged_values_are_summed_on_the_linear_scale():
    normalised = COUNTS / COUNTS.sum(1, keepdims=True) * 50
    cells = small(np.log1p(normalised), genes=["Gm1", "LYZ", "GM1", "GNLY"])
    found = expression_matrix(cells, scale="log1p", duplicates="sum")
    linear = np.stack([normalised[:, 0] + normalised[:, 2], normalised[:, 1], normalised[:, 3]], 1)
    np.testing.assert_allclose(found.matrix.toarray(), np.log10(1 + linear), rtol=1e-5)
    assert cell_sentences(cells, scale="log1p", duplicates="sum")[2] == "GNLY LYZ GM1" or linear[2, 0] == linear[2, 1]


@pytest.mark.parametrize("name", ["", "HLA A"])
def test_names_that_are_no_word(name):
    with pytest.raises(CellDataError, match=rf"1 gene names are empty or hold white space.*'{name}' \(row 1\)"):
        expression_matrix(small(genes=["CD3D", name, "MS4A1", "GNLY"]))


# cells


def test_empty_cells_stop_stay_or_go():
    x = COUNTS.copy()
    x[1] = 0
    cells = small(sparse.csr_matrix(x))
    with pytest.raises(
        CellDataError, match=r"1 of 3 cells express no gene in adata.X: cell1; remove them .*min_genes=1"
    ):
        expression_matrix(cells)
    kept = expression_matrix(cells, empty_cells="keep")
    assert kept.matrix.shape == (3, 4)
    assert kept.target_sum == 9  # the median of 8 and 10
    assert cell_sentences(cells, empty_cells="keep")[1] == ""
    dropped = expression_matrix(cells, empty_cells="drop")
    assert dropped.cell_ids.tolist() == ["cell0", "cell2"]
    assert dropped.rows.tolist() == [0, 2]
    assert any("1 of 3 cells" in line and "dropped" in line for line in dropped.report)
    assert cell_sentences(cells, empty_cells="drop") == [cell_sentences(small())[i] for i in (0, 2)]


def test_shared_cell_ids_are_reported():
    cells = small()
    cells.obs_names = ["a", "b", "a"]
    assert any("share an id" in line for line in expression_matrix(cells).report)
    assert not any("share an id" in line for line in expression_matrix(small()).report)


@pytest.mark.parametrize(
    "option", [{"target_sum": 0}, {"target_sum": np.nan}, {"empty_cells": "skip"}, {"scale": "log2"}]
)
def test_options_that_do_not_exist(option):
    with pytest.raises(CellDataError, match=f"{next(iter(option))} must be"):
        expression_matrix(small(), **option)
    with pytest.raises(CellDataError, match="duplicates must be"):
        expression_matrix(small(), duplicates="merge")


def test_require_obs():
    cells = small()
    cells.obs["Cell_Type"] = ["T", None, "B"]
    cells.obs["tissue"] = "blood"
    require_obs(cells, ["Cell_Type", "tissue"])
    require_obs(cells, "tissue", allow_missing=False)
    with pytest.raises(
        CellDataError, match=r"no column 'cell_type' \(nearest: 'Cell_Type'\).*there are: Cell_Type, tissue"
    ):
        require_obs(cells, ["tissue", "cell_type"])
    with pytest.raises(CellDataError, match=r"\['Cell_Type'\] has no value for 1 of 3 cells: cell1"):
        require_obs(cells, ["Cell_Type"], allow_missing=False)
    with pytest.raises(CellDataError, match="Columns there are: none"):
        require_obs(small(), ["x"])


# scales


@pytest.mark.parametrize("columns", [slice(None), slice(0, 25)])
@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (lambda n: n, "normalized"),
        (np.log1p, "log_e(1 + normalised)"),
        (lambda n: np.log10(1 + n), "log10(1 + normalised)"),
        (lambda n: np.log2(1 + n), "log2(1 + normalised)"),
    ],
)
def test_scale_is_found_from_the_values(transform, text, columns):
    """Also where genes were left out after normalising, so that totals say nothing."""
    counts = many_counts()
    normalised = counts / counts.sum(1, keepdims=True) * 1e4
    x = transform(normalised)[:, columns].astype(np.float32)
    cells = small(x, [f"G{i}" for i in range(x.shape[1])])
    found = expression_matrix(cells, empty_cells="keep")
    assert found.scale == text
    assert text in found.report[0]
    np.testing.assert_allclose(found.matrix.toarray(), np.log10(1 + normalised[:, columns]), rtol=2e-5)


def test_counts_are_normalised_to_the_median_or_a_target():
    counts = many_counts()
    cells = small(counts, [f"G{i}" for i in range(60)])
    median = expression_matrix(cells)
    assert median.target_sum == np.median(counts.sum(1))
    np.testing.assert_allclose(median.matrix.toarray(), expected_log10(counts, median.target_sum), rtol=1e-5)
    fixed = expression_matrix(cells, target_sum=1e4)
    np.testing.assert_allclose(fixed.matrix.toarray(), expected_log10(counts, 1e4), rtol=1e-5)
    assert "read as counts" in fixed.report[0]
    assert "10000" in fixed.report[0]
    # corrected counts are not whole, but may be told to be counts
    corrected = small(counts * 0.9, [f"G{i}" for i in range(60)])
    np.testing.assert_allclose(
        expression_matrix(corrected, scale="counts", target_sum=1e4).matrix.toarray(),
        fixed.matrix.toarray(),
        rtol=1e-5,
    )


@pytest.mark.parametrize("base", [None, 2, 10])
@pytest.mark.parametrize("written", [False, True])
def test_the_base_scanpy_records_is_used(tmp_path, base, written):
    cells = small(many_counts(20), [f"G{i}" for i in range(60)])
    sc.pp.normalize_total(cells, target_sum=1e3)
    expected = np.log10(1 + cells.X)
    sc.pp.log1p(cells, base=base)
    if written:  # the file has no entry for a base of None
        cells.write_h5ad(tmp_path / "cells.h5ad")
        cells = ad.read_h5ad(tmp_path / "cells.h5ad")
    for scale in ("auto", "log1p"):
        found = expression_matrix(cells, scale=scale)
        np.testing.assert_allclose(found.matrix.toarray(), expected, rtol=2e-5)
        assert "uns['log1p']" in found.report[0]


def test_whole_numbers_are_counts_though_x_was_logged():
    cells = small()
    cells.layers["counts"] = COUNTS
    sc.pp.log1p(cells)
    assert expression_matrix(cells, layer="counts").scale == "counts"


def test_without_evidence_size_decides():
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, 1.0, (30, 20)).astype(np.float32)
    assert expression_matrix(small(x, [f"G{i}" for i in range(20)])).scale == "log_e(1 + normalised)"
    assert expression_matrix(small(x * 100, [f"G{i}" for i in range(20)])).scale == "normalized"


def test_told_scales():
    x = np.array([[0.5, 1.25]], np.float32)
    read = {
        s: expression_matrix(small(x, ["A", "B"]), scale=s).matrix.toarray()
        for s in ("log10p", "log2p", "log1p", "normalized")
    }
    np.testing.assert_array_equal(read["log10p"], x)
    np.testing.assert_allclose(read["log2p"], np.log10(2.0**x), rtol=1e-6)
    np.testing.assert_allclose(read["log1p"], x / np.log(10), rtol=1e-6)
    np.testing.assert_allclose(read["normalized"], np.log10(1 + x), rtol=1e-6)
    for scale in ("log1p", "log2p", "log10p"):
        with pytest.raises(CellDataError, match=f"scale='{scale}', but values go up to 3000"):
            expression_matrix(small(np.array([[3000, 0.5]]), ["A", "B"]), scale=scale)


def test_real_cells(pbmc):
    found = expression_matrix(pbmc, use_raw=True)
    np.testing.assert_allclose(found.matrix.toarray(), pbmc.raw.X.toarray() / np.log(10), rtol=1e-6)
    assert "log_e" in found.report[0]


# ranks come from the values as read


def test_conversion_never_makes_ties():
    """Two float64 values that are one float32 value rank as they are."""
    near = np.array([[1.0, 1.0 + 1e-12, 1.0 + 2e-12, 0.5]])
    assert cell_sentences(small(near), scale="log1p") == ["MS4A1 LYZ CD3D GNLY"]
    assert cell_sentences(small(near), scale="log1p", ties="cell2sentence") == ["MS4A1 LYZ CD3D GNLY"]


def test_rank_pairs_genes_with_their_expression():
    found = expression_matrix(small())
    ranked = found.rank(top_k=2)
    dense = found.matrix.toarray()
    for i, (start, stop) in enumerate(zip(ranked.indptr[:-1], ranked.indptr[1:], strict=True)):
        np.testing.assert_array_equal(ranked.values[start:stop], dense[i, ranked.genes[start:stop]])
        np.testing.assert_array_equal(ranked.values[start:stop], np.sort(dense[i])[::-1][:2])
