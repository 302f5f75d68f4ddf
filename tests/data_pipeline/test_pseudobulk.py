"""Data sets of summed counts, made split by split."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from c2s_jax.cells import expression_matrix
from c2s_jax.cells.pseudobulk import pseudobulk
from c2s_jax.data.corpus import Corpus
from data_pipeline.build import build_corpus
from data_pipeline.sources import Source

BY = ("donor", "cell_type")


@pytest.fixture
def adata(make_adata):
    cells = make_adata(n_cells=150)
    cells.obs["patient"] = [None if i % 11 == 0 else f"donor {i % 4}" for i in range(150)]
    cells.obs["site"] = [f"site {i % 2}" for i in range(150)]  # follows from the donor
    cells.obs["plate"] = [f"plate {i % 7}" for i in range(150)]
    return cells


def source(cells, **options) -> Source:
    columns = {"cell_type": "label", "donor": "patient", "tissue": "site", "batch": "plate"}
    return Source(cells, "s", "human", columns, {"assay": "10x"}, pseudobulk=BY, **options)


def test_rows_are_the_sums_of_their_splits_cells(tmp_path, adata):
    corpus = Corpus(build_corpus(source(adata), tmp_path / "c", unit_cells=40))
    assert [d["name"] for d in corpus.datasets] == ["s", "s_pseudobulk"]
    frames = []
    for split in corpus.splits:
        cells = corpus.cells(split)
        mine = adata[np.isin(adata.obs_names, cells.cell_ids(np.flatnonzero(cells.dataset_ids == 0)))]
        sums = pseudobulk(mine, ["patient", "label"])
        sums.obs_names = [f"{name}_{split}" for name in sums.obs_names]
        frames.append(sums)
    expected = ad.concat(frames, join="outer")
    whole = expression_matrix(expected)
    assert corpus.datasets[1]["provenance"]["normalisation"]["target_sum"] == whole.target_sum
    ranked = whole.rank()
    place = {name: i for i, name in enumerate(whole.cell_ids.tolist())}
    seen = 0
    for split in corpus.splits:
        cells = corpus.cells(split)
        for i in np.flatnonzero(cells.dataset_ids == 1):
            cell, row = cells[i], place[cells[i].cell_id]
            part = slice(ranked.indptr[row], ranked.indptr[row + 1])
            assert [corpus.genes.names[g] for g in cell.genes] == [whole.genes.names[g] for g in ranked.genes[part]]
            np.testing.assert_array_equal(cell.expression, ranked.values[part].astype(np.float16))
            assert cell.fields["donor"] == expected.obs["patient"].iloc[row]
            assert cell.fields["cell_type"] == expected.obs["label"].iloc[row]
            assert cell.fields["tissue"] == f"site {int(cell.fields['donor'][-1]) % 2}"
            assert (cell.fields["organism"], cell.fields["assay"], cell.fields["batch"]) == ("human", "10x", "")
            seen += 1
    assert seen == len(whole.cell_ids) == corpus.datasets[1]["counts"]["cells"]
    assert max(d["rank_expression"]["slope"] for d in corpus.datasets) < 0
    assert [d["provenance"]["sums_of"] for d in corpus.datasets] == [None, "s"]


def test_names_of_sums_are_taken_too(tmp_path, adata):
    other = Source(adata, "s_pseudobulk", obs_columns={"cell_type": "label"})
    with pytest.raises(ValueError, match="2 data sets are named 's_pseudobulk'; give each a name of its own"):
        build_corpus([source(adata), other], tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["organism", "constant", "column", "column of two"])
def test_sums_have_the_organism_of_their_cells(tmp_path, adata, how):
    adata.obs["species"] = "mouse"
    if how == "column of two":
        adata.obs.loc[adata.obs["patient"] == "donor 1", "species"] = "human"
    given = {"organism": {"organism": "mouse"}, "constant": {"constants": {"organism": "mouse"}}}
    columns = {"cell_type": "label", "donor": "patient"} | ({"organism": "species"} if "column" in how else {})
    source = Source(adata, "s", obs_columns=columns, pseudobulk=BY, **given.get(how, {}))
    corpus = Corpus(build_corpus(source, tmp_path / "c", split=(1, 0, 0)))
    cells = corpus.cells("train")
    found = {(d, o) for d, o in zip(cells.dataset_ids.tolist(), cells.fields("organism").tolist())}
    if how == "column of two":
        assert found == {(0, "mouse"), (0, "human"), (1, "mouse"), (1, "human")}
    else:
        assert found == {(0, "mouse"), (1, "mouse")}
    assert [d["organism"] for d in corpus.datasets] == ["" if how == "column of two" else "mouse"] * 2


def test_genes_left_out_are_left_out_of_the_sums(tmp_path, adata):
    adata.X[:, 7] = 0
    adata.X.eliminate_zeros()
    corpus = Corpus(build_corpus(source(adata, min_cells=1), tmp_path / "c"))
    assert "GENE7" not in corpus.genes
    assert [d["counts"]["genes"] for d in corpus.datasets] == [29, 29]


def test_sums_want_counts_and_values(tmp_path, adata):
    logged = adata.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(ValueError, match="s: its values are no whole numbers: pseudobulk is the sum of raw counts"):
        build_corpus(source(logged), tmp_path / "c")
    adata.obs["patient"] = pd.Series([None] * 150, dtype=object, index=adata.obs_names)
    with pytest.raises(ValueError, match="s: no cell has a value of donor, cell_type"):
        build_corpus(source(adata), tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
