"""Every format gives the cells that were written to it, block by block."""

import pickle
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from data_pipeline.readers import FORMATS, SomaOptions, guess_format, matrices, open_cells, transpose
from data_pipeline.sources import Source
from tests.data_pipeline import cell_files as files

EXPECTED = {
    "h5ad": (files.h5ad, {}),
    "h5ad compressed": (partial(files.h5ad, compression="gzip"), {}),
    "h5ad dense": (files.h5ad, {"layer": "dense"}),
    "h5ad columns": (files.h5ad, {"layer": "columns"}),
    "zarr": (files.zarr, {}),
    "zarr dense": (files.zarr, {"layer": "dense"}),
    "zarr columns": (files.zarr, {"layer": "columns"}),
    "10x_h5 v3": (files.tenx_v3, {}),
    "10x_h5 v2": (files.tenx_v2, {}),
    "10x_mtx": (files.mtx, {}),
    "10x_mtx compressed": (partial(files.mtx, compressed=True), {}),
    "10x_mtx of version 2": (partial(files.mtx, features=False), {}),
    "soma": (files.soma, {}),
}


def read(table, block: int = 7) -> np.ndarray:
    """All rows, block by block."""
    blocks = [table.rows(start, start + block) for start in range(0, table.n_cells, block)]
    for rows in blocks:
        assert rows.has_canonical_format
        assert (rows.data != 0).all()
    return sparse.vstack(blocks).toarray()


@pytest.mark.parametrize("case", EXPECTED)
def test_every_format_gives_the_cells_written(tmp_path, case):
    write, options = EXPECTED[case]
    path = write(tmp_path)
    assert guess_format(path) == case.split()[0]
    with open_cells(path, **options) as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)
        assert (table.obs.index.tolist(), table.symbols) == (files.CELLS, files.GENES)
        assert (table.format, table.log1p_base) == (case.split()[0], "absent")
        assert table.name == str(path)


def test_every_format_is_tested():
    assert {case.split()[0] for case in EXPECTED} == set(FORMATS)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "int8", "backed", "view", "array"])
def test_anndata_in_memory(tmp_path, kind):
    adata = files.adata()
    expected = files.COUNTS
    if kind == "csc":
        adata.X = sparse.csc_matrix(adata.X)
    elif kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "int8":
        adata.X = adata.X.astype(np.int8)
    elif kind == "backed":
        adata = ad.read_h5ad(files.h5ad(tmp_path), backed="r")
    elif kind == "view":
        adata, expected = adata[::-1], expected[::-1]
    elif kind == "array":
        adata.X = sparse.csr_array(adata.X)
    before = None if kind == "backed" else adata.copy()
    with open_cells(adata, name="mine") as table:
        np.testing.assert_array_equal(read(table), expected)
        assert table.name == "mine"
        np.testing.assert_array_equal(table.coordinates("spatial"), np.float32(adata.obsm["spatial"]))
        table.rows(0, 5).data[:] = 99
    if before is not None:
        assert (abs(sparse.csr_matrix(adata.X) - sparse.csr_matrix(before.X))).sum() == 0


@pytest.mark.parametrize("write", [None, files.h5ad, files.zarr])
def test_raw_has_genes_of_its_own(tmp_path, write):
    data = files.adata() if write is None else write(tmp_path)
    with open_cells(data, use_raw=True) as table:
        np.testing.assert_array_equal(read(table)[:, :-1], 2 * files.COUNTS)
        assert (table.symbols[-1], table.matrix_name) == ("Extra", "raw")


@pytest.mark.parametrize("write", [files.h5ad, files.zarr])
def test_annotation_comes_as_anndata_reads_it(tmp_path, write):
    path = write(tmp_path)
    original = ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)
    with open_cells(path) as table:
        pd.testing.assert_frame_equal(table.obs, original.obs)
        np.testing.assert_array_equal(table.coordinates("spatial"), files.POSITIONS.astype(np.float32))


@pytest.mark.parametrize(("recorded", "expected"), [({"base": 2.0}, 2.0), ({}, None), ({"base": None}, None)])
def test_base_of_the_logarithm(tmp_path, recorded, expected):
    adata = files.adata()
    adata.uns["log1p"] = recorded
    adata.write_h5ad(tmp_path / "logged.h5ad")
    for data in (adata, tmp_path / "logged.h5ad"):
        with open_cells(data) as table:
            assert table.log1p_base == expected


def test_columns_are_turned_in_bounded_memory_and_the_file_removed(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    big = sparse.random(20_000, 300, 0.2, format="csc", dtype=np.float32, random_state=rng)
    adata = ad.AnnData(big)
    adata.write_h5ad(tmp_path / "big.h5ad")
    monkeypatch.setattr(transpose, "_BLOCK_ENTRIES", 20_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_cells(tmp_path / "big.h5ad") as table:
        table.sample(8)
        assert not list(tmp_path.glob("c2s-rows-*"))  # nothing is turned for a sample
        tracemalloc.start()
        table.rows(0, 1)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < big.data.nbytes + big.indices.nbytes
        assert peak < 200 * transpose._BLOCK_ENTRIES
        assert len(list(tmp_path.glob("c2s-rows-*"))) == 1
        rows = sparse.vstack([table.rows(s, s + 4096) for s in range(0, 20_000, 4096)])
        assert (rows != big.tocsr()).nnz == 0
    assert not list(tmp_path.glob("c2s-rows-*"))


def test_scratch_is_shared_by_all_that_open_the_file(tmp_path, monkeypatch):
    path, scratch = files.h5ad(tmp_path), tmp_path / "scratch"
    scratch.mkdir()
    with open_cells(path, layer="columns", scratch=scratch) as table:
        read(table)
    there = sorted(scratch.iterdir())
    monkeypatch.setattr(transpose, "write_rows", lambda *_: pytest.fail("written again"))
    with open_cells(path, layer="columns", scratch=scratch) as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)
    assert sorted(scratch.iterdir()) == there


def test_who_comes_second_waits_for_the_first(tmp_path, monkeypatch):
    path, scratch, written = files.h5ad(tmp_path), tmp_path / "scratch", []
    scratch.mkdir()
    original = transpose.write_rows

    def slow(*arguments):
        written.append(arguments)
        time.sleep(0.3)
        original(*arguments)

    def read_one(_):
        with open_cells(path, layer="columns", scratch=scratch) as table:
            return read(table)

    monkeypatch.setattr(transpose, "write_rows", slow)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(read_one, range(3)):
            np.testing.assert_array_equal(found, files.COUNTS)
    assert len(written) == 1


def test_another_file_of_that_name_is_not_taken_for_it(tmp_path):
    path, scratch = files.h5ad(tmp_path), tmp_path / "scratch"
    scratch.mkdir()
    with open_cells(path, layer="columns", scratch=scratch) as table:
        read(table)
    adata = files.adata()
    adata.layers["columns"] = 3 * adata.layers["columns"]
    path.unlink()
    adata.write_h5ad(path)
    with open_cells(path, layer="columns", scratch=scratch) as table:
        np.testing.assert_array_equal(read(table), 3 * files.COUNTS)


def test_tall_chunks_are_turned_too(tmp_path, monkeypatch):
    path = files.h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        attributes = dict(file["layers/dense"].attrs)
        del file["layers/dense"]
        tall = file.create_dataset("layers/dense", data=files.COUNTS, chunks=(files.N_CELLS, 3))
        tall.attrs.update(attributes)
    monkeypatch.setattr(matrices, "_TALL_CHUNK", 30)
    monkeypatch.setattr(matrices, "SlicedRows", None)
    with open_cells(path, layer="dense") as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 9), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 8)), unique=True),
    st.integers(1, 20), st.integers(1, 5),
)  # fmt: skip
def test_entries_in_any_order_become_rows(tmp_path_factory, n_rows, n_columns, places, band, block):
    places = [(row, column) for row, column in places if row < n_rows and column < n_columns]
    rows, columns = (np.array([place[i] for place in places], dtype=np.int64) for i in (0, 1))
    values = np.arange(1, len(places) + 1, dtype=np.float32)

    def blocks():
        for start in range(0, len(values), block):
            part = slice(start, start + block)
            yield rows[part], columns[part], values[part]

    folder = tmp_path_factory.mktemp("rows")
    entries = transpose.Entries(lambda: np.bincount(rows, minlength=n_rows), blocks, values.dtype)
    transpose.write_rows(folder, entries, band)
    indptr, indices, data = transpose._mapped(folder)
    found = sparse.csr_matrix((data, indices, indptr), shape=(n_rows, n_columns))
    expected = sparse.csr_matrix((values, (rows, columns)), shape=(n_rows, n_columns))
    assert (found != expected).nnz == 0
    assert sorted(p.name for p in folder.iterdir()) == ["data.npy", "indices.npy", "indptr.npy"]


def test_mtx_in_any_order_and_orientation(tmp_path):
    folder = files.mtx(tmp_path)
    head, *lines = (folder / "matrix.mtx").read_text().splitlines()
    shape, *entries = [line for line in lines if not line.startswith("%")]
    rng = np.random.default_rng(0)
    shuffled = [entries[i] for i in rng.permutation(len(entries))]
    (folder / "matrix.mtx").write_text("\n".join([head, "% a comment", "%", shape, *shuffled]) + "\n")
    with open_cells(folder) as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)
    turned = [" ".join([*reversed(line.split()[:2]), line.split()[2]]) for line in [shape, *shuffled]]
    (folder / "matrix.mtx").write_text("\n".join([head, *turned]) + "\n")
    with open_cells(folder) as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)
        assert "matrix.mtx is cells × genes" in table.report[0]


def test_mtx_named_by_sample_and_by_its_file(tmp_path):
    folder = files.mtx(tmp_path, prefix="GSM1_", compressed=True)
    for path in (folder, folder / "GSM1_matrix.mtx.gz"):
        with open_cells(path) as table:
            np.testing.assert_array_equal(read(table), files.COUNTS)
    (folder / "GSM2_matrix.mtx").write_text("")
    with pytest.raises(ValueError, match=r"mtx holds 2 matrices \(GSM1_matrix.mtx.gz, GSM2_matrix.mtx\): name one"):
        open_cells(folder)


@pytest.mark.parametrize("write", [files.tenx_v3])
def test_antibodies_are_left_out(tmp_path, write):
    kinds = ["Gene Expression"] * 20 + ["Antibody Capture"] * 5
    with open_cells(write(tmp_path, kinds=kinds)) as table:
        np.testing.assert_array_equal(read(table), files.COUNTS[:, :20])
        assert table.symbols == files.GENES[:20]
        assert table.report == ["features that are not Gene Expression are left out: 5 Antibody Capture"]


def test_genomes_of_cell_ranger_2(tmp_path):
    path = files.tenx_v2(tmp_path, ("hg19", "mm10"))
    with pytest.raises(ValueError, match=r"v2\.h5 holds several genomes: choose one of hg19, mm10 with genes_prefix"):
        open_cells(path)
    with Source(path, "s", genes_prefix="mm10").open() as table:
        assert (table.matrix_name, table.symbols) == ("mm10", files.GENES)
    with pytest.raises(ValueError, match="has no genome 'mm9'"):
        Source(path, "s", genes_prefix="mm9").open()


def test_parts_of_an_experiment(tmp_path):
    path = files.soma(tmp_path)
    options = SomaOptions(obs_filter="label == 'type 1'", var_filter="var_id > 'Gene2'", columns=["label"])
    with open_cells(path, soma=options) as table:
        cells = np.arange(files.N_CELLS) % 3 == 1
        genes = np.array(files.GENES) > "Gene2"
        np.testing.assert_array_equal(read(table, 3), files.COUNTS[np.ix_(cells, genes)])
        assert table.obs["label"].unique().tolist() == ["type 1"]
        assert "years" not in table.obs
        np.testing.assert_allclose(table.coordinates("spatial"), files.POSITIONS[cells], rtol=1e-6)
    with open_cells(path, soma=SomaOptions(measurement="raw")) as table:
        np.testing.assert_array_equal(read(table)[:, :-1], 2 * files.COUNTS)


def test_dense_experiment_with_layers(tmp_path):
    import tiledbsoma

    path = files.soma(tmp_path, X_kind=tiledbsoma.DenseNDArray)
    with tiledbsoma.Experiment.open(str(path), "w") as experiment:
        tiledbsoma.io.add_X_layer(experiment, "RNA", "twice", sparse.csr_matrix(2 * files.COUNTS))
    with open_cells(path) as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)
    with open_cells(path, layer="twice") as table:
        np.testing.assert_array_equal(read(table), 2 * files.COUNTS)


def test_census_is_a_collection_of_experiments(tmp_path):
    import tiledbsoma

    path = files.soma(tmp_path)
    census = str(tmp_path / "census")
    with tiledbsoma.Collection.create(census) as root:
        data = root.add_new_collection("census_data")
        data.set("homo_sapiens", tiledbsoma.open(str(path)), use_relative_uri=False)
    with pytest.raises(ValueError, match="choose one with experiment; there is homo_sapiens"):
        open_cells(census)
    with open_cells(census, soma=SomaOptions(experiment="homo_sapiens")) as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)


def test_samples_come_from_all_over(tmp_path):
    path = files.h5ad(tmp_path)
    with open_cells(path) as table:
        found = table.sample(8).toarray()
        known = {row.tobytes(): i for i, row in enumerate(files.COUNTS)}
        places = [known[row.tobytes()] for row in found]
        assert len(places) == 8
        assert (min(places), max(places)) == (0, files.N_CELLS - 1)
    with open_cells(path, layer="columns") as table:
        np.testing.assert_array_equal(table.sample(files.N_CELLS).toarray(), files.COUNTS)


def test_which_other_matrix_could_be_used(tmp_path):
    adata = files.adata()
    adata.X = adata.X.toarray() - 1
    adata.layers["lost"] = np.full_like(files.COUNTS, np.nan)
    adata.write_h5ad(tmp_path / "scaled.h5ad")
    for data in (adata, tmp_path / "scaled.h5ad"):
        with open_cells(data) as table:
            found = set(table.usable_instead().split(" or "))
        assert found == {
            "adata.raw (use_raw=True)",
            "adata.layers['columns'] (layer='columns')",
            "adata.layers['dense'] (layer='dense')",
        }


def test_sources_travel_to_other_processes(tmp_path):
    source = pickle.loads(pickle.dumps(Source(files.h5ad(tmp_path), "s", obs_columns={"age": "years"})))
    with source.open() as table:
        texts = source.texts(table.obs)
    assert texts["age"].tolist() == ["" if i % 5 == 0 else "40" for i in range(files.N_CELLS)]


@pytest.mark.parametrize("name", ["X", "raw.X"])
def test_files_of_anndata_before_0_7(tmp_path, name):
    counts = sparse.csr_matrix(files.COUNTS)
    path = tmp_path / "old.h5ad"
    obs = np.zeros(files.N_CELLS, dtype=[("index", "S12"), ("label", "i1"), ("years", "f8")])
    obs["index"], obs["label"], obs["years"] = files.CELLS, np.arange(files.N_CELLS) % 3, 40
    var = np.array([(gene,) for gene in files.GENES], dtype=[("index", "S8")])
    with h5py.File(path, "w") as file:
        group = file.create_group(name)
        group.attrs.update({"h5sparse_format": b"csr", "h5sparse_shape": counts.shape})
        group["indptr"], group["indices"], group["data"] = counts.indptr, counts.indices, counts.data
        file["obs"], file["var"], file["raw.var"] = obs, var, var
        file["uns/label_categories"] = np.array([b"A", b"B\xff", b"C"])
        file["obsm"] = np.array([((x, y),) for x, y in files.POSITIONS], dtype=[("spatial", "f8", 2)])
    with open_cells(path, use_raw=name == "raw.X") as table:
        np.testing.assert_array_equal(read(table), files.COUNTS)
        assert table.obs["label"].tolist() == ["A", "Bÿ", "C"] * 13 + ["A"]
        assert table.obs["years"].tolist() == [40] * files.N_CELLS
        np.testing.assert_array_equal(table.coordinates("spatial"), files.POSITIONS.astype(np.float32))
        assert "1 of 3 texts are not UTF-8" in table.report[0]


@pytest.mark.skipif("not __import__('os').environ.get('C2S_DATA')", reason="C2S_DATA names no folder of real data")
def test_real_file_of_cell_ranger():
    import os

    import scanpy

    path = next(Path(os.environ["C2S_DATA"], "lung_balf_covid_liao").glob("*C144*.h5"))
    adata = scanpy.read_10x_h5(path)
    with open_cells(path) as table:
        rows = sparse.vstack([table.rows(start, start + 1000) for start in range(0, table.n_cells, 1000)])
        assert (rows != adata.X).nnz == 0
        assert (table.obs.index.tolist(), table.symbols) == (adata.obs_names.tolist(), adata.var_names.tolist())
