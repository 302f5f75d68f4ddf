"""Files that cannot be used say which file, what in it, and what to do."""

import gzip
import re

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from data_pipeline.readers import ReadError, SomaOptions, guess_format, open_cells
from tests.data_pipeline import cell_files as files


def table_of(cells: list[str], genes: list[str]) -> ad.AnnData:
    obs, var = pd.DataFrame(index=cells), pd.DataFrame(index=genes)
    return ad.AnnData(sparse.csr_matrix(np.ones((len(cells), len(genes)), np.float32)), obs=obs, var=var)


def save(adata: ad.AnnData, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layer": "colums"},
            r"adata.layers has no 'colums' \(nearest: adata.layers\['columns'\]\)\. There is adata",
        ),
        ({"layer": "dense", "use_raw": True}, "both layer='dense' and use_raw=True are given"),
        ({"format": "loom"}, "format 'loom' is unknown; there is h5ad, zarr"),
    ],
)
def test_choices_that_are_not_there(tmp_path, options, message):
    with pytest.raises(ReadError, match=f"cells.h5ad: {message}"):
        open_cells(files.h5ad(tmp_path), **options)


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad"):
        open_cells(tmp_path / "none.h5ad")
    with pytest.raises(ReadError, match="neither a Zarr store nor a SOMA experiment nor matrix.mtx"):
        open_cells(tmp_path)
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(ReadError, match=r"table\.csv is none of the formats"):
        guess_format(tmp_path / "table.csv")
    (tmp_path / "text.h5ad").write_text("no HDF5")
    with pytest.raises(ReadError, match=r"text\.h5ad cannot be read as \.h5ad: .*signature"):
        open_cells(tmp_path / "text.h5ad")
    with pytest.raises(ReadError, match="file:///none cannot be read as a SOMA experiment"):
        open_cells("file:///none")


@pytest.mark.parametrize("write", [files.tenx_v3, files.mtx])
def test_formats_of_one_matrix_have_no_layers(tmp_path, write):
    with pytest.raises(ReadError, match="layer='counts' is given, but a file of this format has one matrix only"):
        open_cells(write(tmp_path), layer="counts")


@pytest.mark.parametrize("write", [files.h5ad, files.zarr, files.tenx_v3, files.mtx, lambda _: files.adata()])
def test_only_experiments_have_parts(tmp_path, write):
    with pytest.raises(ReadError, match="soma is given, but this is no SOMA experiment; leave soma out"):
        open_cells(write(tmp_path), soma=SomaOptions(obs_filter="label == 'type 1'"))


BARCODES = [f"{code}-1" for code in ("AAACCCAAGAAACACT", "AAACCCAAGAAACCAT", "AAACCCAAGAAACCCA", "TTACCCAAGAAACCAT")]
SYMBOLS = "ACTB GAPDH CD3E MS4A1 MALAT1 LYZ VIM".split()
ENSEMBL = [f"ENSG{i:011}" for i in range(6)]


@pytest.mark.parametrize(
    ("cells", "genes", "transposed"),
    [
        (SYMBOLS, BARCODES, True),
        (SYMBOLS, ["s1", "s2"], True),
        (ENSEMBL, ["s1", "s2"], True),
        (["g1", "g2"], BARCODES, True),
        ([s.title() for s in SYMBOLS], ["s1"], True),  # mouse
        (BARCODES, SYMBOLS, False),
        (["s1", "s2", "s3"], SYMBOLS[:2], False),
        (["s1", "s2"], ["g1", "g2", "g3"], False),
        (SYMBOLS, SYMBOLS, False),  # a gene × gene matrix is not ours to judge
    ],
)
def test_transposed_files_are_told_from_others(tmp_path, cells, genes, transposed):
    path = save(table_of(cells, genes), tmp_path)
    if not transposed:
        open_cells(path).close()
        return
    with pytest.raises(ReadError, match=r"cells.h5ad seems to be transposed.*Cells must be rows: write adata\.T"):
        open_cells(path)


@pytest.mark.parametrize("use_raw", [False, True])
def test_ids_that_two_cells_share(tmp_path, use_raw):
    adata = table_of(["a", "b", "a", "c", "b"], ["g", "h"])
    adata.raw = adata.copy()
    for data in (adata, save(adata, tmp_path)):
        with pytest.raises(ReadError, match=r"2 cells have an id \(obs_names\) that another has already: a, b\. Make"):
            open_cells(data, use_raw=use_raw)


@pytest.mark.parametrize(("cells", "genes"), [([], ["g"]), (["c"], [])])
def test_no_cells_or_no_genes(tmp_path, cells, genes):
    adata = table_of(cells, genes)
    for data in (adata, save(adata, tmp_path)):
        with pytest.raises(ReadError, match=rf"there are {len(cells)} cells \(obs\) and {len(genes)} genes \(var\)"):
            open_cells(data)


@pytest.mark.parametrize(
    ("write", "key", "message"),
    [
        (files.h5ad, "obs", "is no AnnData: it has no 'obs', only"),
        (files.h5ad, "X", r"adata\.X is empty\. There is adata\.raw \(use_raw=True\), adata\.layers"),
        (files.h5ad, "X/indptr", "X cannot be read: .*indptr"),
        (files.h5ad, "X/data", "X cannot be read: .*data"),
        (files.h5ad, "obs/label/categories", "obs cannot be read: .*categories"),
        (files.h5ad, "var/_index", "var cannot be read: .*_index"),
        (files.tenx_v3, "matrix/barcodes", "matrix has no 'barcodes'"),
        (files.tenx_v3, "matrix/features/name", "matrix has no 'features/name'"),
        (files.tenx_v2, "hg19/genes", "hg19 has no 'genes'"),
    ],
)
def test_parts_that_are_missing(tmp_path, write, key, message):
    path = write(tmp_path)
    with h5py.File(path, "a") as file:
        del file[key]
    with pytest.raises(ReadError, match=f"{path.name}:? {message}"):
        open_cells(path)


def change(path, key, edit):
    with h5py.File(path, "a") as file:
        values = file[key][:]
        edit(values)
        file[key][:] = values


@pytest.mark.parametrize("layer", [None, "columns"])
def test_compressed_matrices_that_do_not_hold_together(tmp_path, layer):
    path, key = files.h5ad(tmp_path), (layer and f"layers/{layer}") or "X"
    change(path, f"{key}/indices", lambda v: v.__setitem__(5, 99))
    with open_cells(path, layer=layer) as table, pytest.raises(ReadError, match=r"entry in (column|row) 99 of (25|40)"):
        table.rows(0, 40)
    change(path, f"{key}/indptr", lambda v: v.__setitem__(3, v[4] + 1))
    with pytest.raises(ReadError, match="is damaged: indptr goes from 0 to .* and falls on the way"):
        open_cells(path, layer=layer)


def test_matrix_of_another_size_than_its_annotation(tmp_path):
    path = files.h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = [40, 24]
    with pytest.raises(ReadError, match="X is 40 × 24, but obs names 40 cells and var 25 genes"):
        open_cells(path)


def test_matrix_of_no_numbers(tmp_path):
    path = files.h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        del file["layers/dense"]
        file["layers/dense"] = np.full((40, 25), b"one")
    with pytest.raises(ReadError, match=r"layers\['dense'\] holds \|S3, no numbers"):
        open_cells(path, layer="dense")


def test_coordinates_that_cannot_be_used(tmp_path):
    adata = files.adata()
    adata.obsm["spatial"][3, 1] = np.nan
    for data in (adata, save(adata, tmp_path)):
        with open_cells(data) as table:
            with pytest.raises(ReadError, match=r"no position for 1 of 40 cells \(first: 'cell-3', row 3\)"):
                table.coordinates("spatial")
            with pytest.raises(ReadError, match=r"obsm has no 'space'; it has \['spatial'\]"):
                table.coordinates("space")


def test_text_that_is_not_utf8_is_read_and_reported(tmp_path):
    adata = files.adata()
    adata.obs["label"] = ["Müller"] * 20 + ["rod"] * 20
    path = save(adata, tmp_path)
    with h5py.File(path, "a") as file:
        for key, text in (("obs/label/categories", "Müller"), ("obs/note", "ä1")):
            values = file[key][:]
            values[values == text.encode()] = text.encode("latin-1")
            file[key][:] = values
    with open_cells(path) as table:
        assert table.obs["label"].tolist() == adata.obs["label"].tolist()
        assert table.obs["note"].tolist() == adata.obs["note"].tolist()
        said = " ".join(table.report)
    assert re.search(r"obs/label/categories: 1 of 2 texts are not UTF-8 and .* Windows-1252: 'Müller' \(row 0", said)
    assert re.search(r"obs/note: 1 of 40 texts .*: 'ä1' \(row 1\)", said)


def test_barcodes_that_are_not_utf8(tmp_path):
    folder = files.mtx(tmp_path, compressed=True)
    path = folder / "barcodes.tsv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"cell-7", b"cell-\xe4")))
    with open_cells(folder) as table:
        assert table.obs.index[7] == "cell-ä"
        assert "barcodes.tsv.gz: 1 of 40 texts are not UTF-8" in table.report[0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.replace("25 40", "25 41", 1), "is 25 × 41, but there are 25 features and 40 barcodes"),
        (lambda t: t.replace("integer", "complex"), "holds complex values"),
        (lambda t: t.replace("coordinate", "array"), "no sparse MatrixMarket file"),
        (lambda t: "\n".join(t.splitlines()[:-5]) + "\n", r"is cut short or damaged: \d+ of \d+ entries"),
        (lambda t: t.replace("\n1 2 ", "\n1 41 ", 1), r"line \d+ is outside of 25 genes × 40 cells"),
        (lambda t: t.replace("\n1 2 ", "\n0 2 ", 1), r"line \d+ is outside of 25 genes × 40 cells"),
        (lambda t: t.replace("\n1 2 ", "\n1 x ", 1), "matrix.mtx cannot be read"),
        (lambda t: t.replace("\n1 2 ", "\n1 2 1 ", 1), "matrix.mtx cannot be read"),
        (lambda t: t.replace("\n1 1 ", "\n1 1 1 ", 1), "matrix.mtx cannot be read"),
    ],
)
def test_mtx_that_is_damaged(tmp_path, edit, message):
    folder = files.mtx(tmp_path)
    text = (folder / "matrix.mtx").read_text()
    assert "\n1 2 " in text
    changed = edit(text)
    assert changed != text
    (folder / "matrix.mtx").write_text(changed)

    def read():
        with open_cells(folder) as table:
            table.rows(0, 1)

    with pytest.raises(ReadError, match=rf"matrix\.mtx:? .*{message}|{message}"):
        read()


def test_mtx_without_its_tables(tmp_path):
    folder = files.mtx(tmp_path)
    (folder / "features.tsv").unlink()
    with pytest.raises(ReadError, match=r"features.tsv\(.gz\) is missing beside matrix.mtx"):
        open_cells(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measurement": "ATAC"}, "ms has no 'ATAC'; it has RNA, raw"),
        ({"obs_filter": "celltype == 'x'"}, r"obs \(with the filter \"celltype == 'x'\"\) cannot be read"),
        ({"obs_filter": "label == 'x'"}, "nothing matches the filter"),
        ({"columns": ["donor"]}, "obs has no column 'donor'; it has soma_joinid, obs_id, label"),
    ],
)
def test_parts_of_an_experiment_that_are_not_there(tmp_path, options, message):
    with pytest.raises(ReadError, match=f"soma: .*{message}"):
        open_cells(files.soma(tmp_path), soma=SomaOptions(**options))


def test_files_stay_closed_after_an_error(tmp_path):
    path = files.h5ad(tmp_path)
    with pytest.raises(ReadError):
        open_cells(path, layer="none")
    with h5py.File(path, "r+") as file:  # refused while it is open for reading
        file.attrs["changed"] = 1
