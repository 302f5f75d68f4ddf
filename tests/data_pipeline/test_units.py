"""Blocks, units and workers change nothing in the corpus; quality control, ties and lines of large data sets."""

import filecmp
import multiprocessing
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from c2s_jax.cells import expression_matrix, fit_rank_expression
from c2s_jax.data.corpus import Corpus
from data_pipeline import blocks, lines, plan, workers
from data_pipeline.build import build_corpus
from data_pipeline.sources import Source

COLUMNS = {"cell_type": "label", "donor": "patient"}


@pytest.fixture
def files(tmp_path, make_adata) -> list[Path]:
    """Two data sets of several units each; the second has logged values and an upper-case twin."""
    first, second = make_adata(n_cells=130, seed=1), make_adata(n_cells=70, seed=2, first_gene=9)
    sc.pp.normalize_total(second, target_sum=1e4)
    sc.pp.log1p(second)
    second.var_names = [*second.var_names[:-1], "GENE12"]
    paths = [tmp_path / "first.h5ad", tmp_path / "second.h5ad"]
    for adata, path in zip((first, second), paths, strict=True):
        adata.write_h5ad(path)
    return paths


def same(one: Path, two: Path) -> None:
    """Assert that two folders hold the same files, byte by byte."""
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in two.iterdir())
    different = filecmp.cmpfiles(one, two, names, shallow=False)[1]
    assert different == []


def build(files, output, **options) -> Path:
    return build_corpus(files, output, obs_columns=COLUMNS, duplicates="sum", unit_cells=32, **options)


def test_blocks_and_processes_change_nothing(tmp_path, files, monkeypatch):
    expected = build(files, tmp_path / "one")
    assert len(Corpus(expected).manifest["shards"]["train"]) == 5 + 3
    same(expected, build(files, tmp_path / "many", workers=2))
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 5)
    same(expected, build(files, tmp_path / "small"))


def test_units_change_only_the_shards(tmp_path, files):
    one, two = (
        Corpus(build_corpus(files, tmp_path / name, obs_columns=COLUMNS, duplicates="sum", unit_cells=n))
        for name, n in (("large", 65_536), ("small", 20))
    )
    assert [len(n) for n in one.manifest["shards"].values()] == [2, 2, 2]
    assert one.datasets == two.datasets
    for split in one.splits:
        cells, others = one.cells(split), two.cells(split)
        every = np.arange(len(cells))
        assert cells.cell_ids().tolist() == others.cell_ids().tolist()
        np.testing.assert_array_equal(cells.take(every).genes, others.take(every).genes)
        np.testing.assert_array_equal(cells.take(every).expression, others.take(every).expression)


@pytest.mark.parametrize("ties", ["hash", "cell2sentence"])
def test_cells_are_those_of_the_whole_matrix(tmp_path, files, ties, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 11)
    corpus = Corpus(build(files, tmp_path / "c", ties=ties, seed=3))
    for number, path in enumerate(files):
        whole = expression_matrix(ad.read_h5ad(path), duplicates="sum")
        ranked = whole.rank(ties=ties, seed=3)
        expected = dict(zip(whole.cell_ids.tolist(), zip(ranked.indptr[:-1], ranked.indptr[1:]), strict=True))
        assert corpus.datasets[number]["provenance"]["normalisation"]["target_sum"] == whole.target_sum
        for split in corpus.splits:
            for cell in (c for c in corpus.cells(split) if c.dataset == number):
                part = slice(*expected[cell.cell_id])
                names = [corpus.genes.names[g] for g in cell.genes]
                assert names == [whole.genes.names[g] for g in ranked.genes[part]]
                np.testing.assert_array_equal(cell.expression, ranked.values[part].astype(np.float16))


def test_quality_control_is_scanpys(tmp_path, make_adata):
    adata = make_adata(n_cells=150, n_genes=40)
    adata.X[:, 20:] = adata.X[:, 20:].multiply(np.random.default_rng(0).random((150, 20)) < 0.02).tocsr()
    filtered = adata.copy()
    sc.pp.filter_cells(filtered, min_genes=12)
    sc.pp.filter_genes(filtered, min_cells=3)
    assert 0 < filtered.n_obs < 150
    assert 20 < filtered.n_vars < 40
    kept = Corpus(build_corpus(filtered, tmp_path / "kept", obs_columns=COLUMNS, unit_cells=40))
    source = Source(adata, "dataset", obs_columns=COLUMNS, min_genes=12, min_cells=3)
    corpus = Corpus(build_corpus(source, tmp_path / "c", unit_cells=40))
    assert corpus.genes == kept.genes
    assert corpus.datasets[0]["counts"] == kept.datasets[0]["counts"]
    assert corpus.datasets[0]["rank_expression"] == kept.datasets[0]["rank_expression"]
    for split in corpus.splits:
        found, expected = (c.cells(split).take(np.arange(len(c.cells(split)))) for c in (corpus, kept))
        np.testing.assert_array_equal(found.genes, expected.genes)
        np.testing.assert_array_equal(found.expression, expected.expression)
    report = " ".join(corpus.datasets[0]["provenance"]["report"])
    assert f"{150 - filtered.n_obs} of 150 cells have fewer than 12 genes" in report
    assert f"{40 - filtered.n_vars} of 40 genes are in fewer than 3 cells" in report


def test_cells_left_empty_by_rare_genes_are_dropped(tmp_path, make_adata):
    adata = make_adata(n_cells=30)
    x = adata.X.toarray()
    x[4] = 0
    x[:, 29] = 0
    x[4, 29] = 3  # expresses only a gene that no other cell does
    adata.X = sparse.csr_matrix(x)
    source = Source(adata, "s", obs_columns=COLUMNS, min_cells=2, expression={"empty_cells": "drop"})
    corpus = Corpus(build_corpus(source, tmp_path / "c"))
    assert corpus.datasets[0]["counts"]["cells"] == 29
    assert any("1 of 30 cells express no gene" in line for line in corpus.datasets[0]["provenance"]["report"])
    with pytest.raises(ValueError, match=r"s: 1 of 30 cells express no gene .*: row 4; remove"):
        build_corpus(Source(adata, "s", obs_columns=COLUMNS, min_cells=2), tmp_path / "d")


@pytest.mark.parametrize(("bad", "what"), [(np.nan, "NaN"), (np.inf, "infinite"), (-1.0, "negative")])
def test_bad_values_are_located(tmp_path, make_adata, bad, what, monkeypatch):
    """A tenth of the entries are bad; the first is in the fourth block."""
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 10)
    adata = make_adata(n_cells=100)
    x = adata.X.toarray()
    x[33:43] = bad
    adata.X = x
    adata.layers["counts"] = np.abs(np.nan_to_num(x, posinf=1))
    expected = rf"dataset: adata.X holds \d+ {what} values \(first: .* in cell 'cell0_33' \(row 33\), gene 'Gene0'\)"
    with pytest.raises(ValueError, match=expected + r".*, in the block of cells 30 to 39\. .*usable instead: .*counts"):
        build_corpus(adata, tmp_path / "c", obs_columns=COLUMNS)


def test_no_expression_at_all(tmp_path, make_adata):
    adata = make_adata()
    adata.X = sparse.csr_matrix(adata.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="dataset: adata.X holds no expressed gene in any cell"):
        build_corpus(adata, tmp_path / "c", obs_columns=COLUMNS)


def test_a_file_that_changes_meanwhile(tmp_path, make_adata, monkeypatch):
    adata = make_adata()
    original = plan.make_plan

    def meddle(*args):
        made = original(*args)
        adata.X.data[:] = 1
        adata.X.data[adata.X.indptr[3] : adata.X.indptr[4]] = 0
        adata.X.eliminate_zeros()
        return made

    monkeypatch.setattr("data_pipeline.assemble.make_plan", meddle)
    with pytest.raises(ValueError, match="dataset: the input changed while the corpus was built"):
        build_corpus(adata, tmp_path / "c", obs_columns=COLUMNS)


def test_line_is_fitted_on_a_keyed_sample_of_training_cells(tmp_path, make_adata, monkeypatch):
    monkeypatch.setattr(lines, "FIT_CELLS", 30)
    adata = make_adata(n_cells=200)
    corpus = Corpus(build_corpus(adata, tmp_path / "c", obs_columns=COLUMNS, unit_cells=50))
    shuffled = adata[np.random.default_rng(0).permutation(200)].copy()
    other = Corpus(build_corpus(shuffled, tmp_path / "d", obs_columns=COLUMNS))
    fit = corpus.datasets[0]["rank_expression"]
    assert fit == pytest.approx(other.datasets[0]["rank_expression"], rel=1e-9)
    train = adata[np.isin(adata.obs_names, corpus.cells("train").cell_ids())]
    whole = fit_rank_expression(train, target_sum=float(np.median(adata.X.toarray().sum(1)))).to_dict()
    assert 0.15 < fit["n_all"] / whole["n_all"] < 0.3  # 30 of 140 cells
    assert fit["slope"] == pytest.approx(whole["slope"], rel=0.1)


def test_data_sets_without_training_cells_get_the_line_of_all(tmp_path, make_adata):
    sources = [Source(make_adata(seed=i), f"s{i}", obs_columns=COLUMNS) for i in range(5)]
    corpus = Corpus(build_corpus(sources, tmp_path / "c", split_by="dataset", split=(0.6, 0.2, 0.2)))
    trained = [d["counts"]["train"] > 0 for d in corpus.datasets]
    assert sum(trained) == 3
    fits = [d["rank_expression"] for d in corpus.datasets]
    others = [fit for fit, mine in zip(fits, trained, strict=True) if not mine]
    slopes = [fit["slope"] for fit, mine in zip(fits, trained, strict=True) if mine]
    assert others[0] == others[1]
    assert min(slopes) < others[0]["slope"] < max(slopes)
    for dataset, mine in zip(corpus.datasets, trained, strict=True):
        assert any("training cells of all data sets" in x for x in dataset["provenance"]["report"]) != mine


def test_gene_counts_in_columns_are_those_stored(tmp_path, make_adata):
    source = Source(make_adata(), "s", obs_columns=COLUMNS, min_cells=30)
    for top_k in (None, 7):
        corpus = Corpus(build_corpus(source, tmp_path / f"c{top_k}", top_k=top_k))
        for split in corpus.splits:
            assert corpus.cells(split).n_genes.tolist() == [len(cell.genes) for cell in corpus.cells(split)]


def test_the_error_of_a_worker_stops_all(tmp_path, files):
    with pytest.raises(ValueError, match="second.h5ad: 1 gene names become equal"):
        build_corpus(files, tmp_path / "c", obs_columns=COLUMNS, workers=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.h5ad", "second.h5ad"]


def test_a_worker_that_is_killed(tmp_path, files, monkeypatch):
    def kill(self, advance) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    monkeypatch.setattr(workers.Processes, "_report", kill)
    with pytest.raises(ChildProcessError, match="a worker process was killed.*fewer --workers"):
        build(files, tmp_path / "c", workers=2)
    assert not (tmp_path / "c").exists()


def test_provenance(tmp_path, files):
    corpus = Corpus(build(files, tmp_path / "c", split_by="cell", top_k=9))
    found = corpus.datasets[1]["provenance"]
    assert found["file"] == "second.h5ad"
    assert found["normalisation"] == {"scale": "normalized", "target_sum": None}
    assert (found["split_by"], found["top_k"], found["duplicates_cells"]) == ("cell", 9, "report")
    assert any("GENE12 (Gene12, GENE12)" in line for line in found["report"])
    frame = pd.DataFrame([d["counts"] for d in corpus.datasets])
    assert (frame[["train", "validation", "test"]].sum(axis=1) == frame["cells"]).all()
