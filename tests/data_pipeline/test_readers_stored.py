"""Matrices in files that come in other ways than as files of AnnData, and in types that SciPy does not have."""

import anndata as ad
import h5py
import numpy as np
import pytest
from scipy import sparse

from data_pipeline.readers import matrices, open_cells
from tests.data_pipeline import cell_files as files
from tests.data_pipeline.test_readers import read


def on_disk(path, counts: np.ndarray, kind: str) -> ad.AnnData:
    """An AnnData that is no file's, with its X in a file."""
    with h5py.File(path, "w") as file:
        if kind == "columns":
            ad.io.write_elem(file, "X", sparse.csc_matrix(counts))
        else:
            file.create_dataset("X", data=counts, chunks=(len(counts), 3))
    stored = h5py.File(path, "r")["X"]
    adata = files.adata()
    return ad.AnnData(ad.io.sparse_dataset(stored) if kind == "columns" else stored, obs=adata.obs, var=adata.var)


@pytest.mark.parametrize("kind", ["columns", "tall"])
def test_each_anndata_keeps_its_own_matrix(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(matrices, "_TALL_CHUNK", 30)
    for times in (1, 2):
        adata = on_disk(tmp_path / f"{times}.h5", times * files.COUNTS, kind)
        with open_cells(adata, scratch=tmp_path / "scratch") as table:
            np.testing.assert_array_equal(read(table), times * files.COUNTS)


def test_a_backed_file_that_was_written_anew(tmp_path):
    for times in (1, 2):
        adata = ad.AnnData(sparse.csc_matrix(times * files.COUNTS))
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        with open_cells(backed, scratch=tmp_path / "scratch") as table:
            np.testing.assert_array_equal(read(table), times * files.COUNTS)
        backed.file.close()
    assert len(list((tmp_path / "scratch").glob("rows-*[!k]"))) == 2


@pytest.mark.parametrize(
    ("layer", "key", "chunks"),
    [
        (None, "X/data", None),
        ("columns", "layers/columns/data", None),
        ("dense", "layers/dense", None),
        ("dense", "layers/dense", (files.N_CELLS, 3)),
    ],
)
def test_values_of_two_bytes(tmp_path, monkeypatch, layer, key, chunks):
    monkeypatch.setattr(matrices, "_TALL_CHUNK", 30)
    path = files.h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        attributes, values = dict(file[key].attrs), file[key][:]
        del file[key]
        file.create_dataset(key, data=values.astype(np.float16), chunks=chunks).attrs.update(attributes)
    with open_cells(path, layer=layer) as table:
        assert table.sample(8).dtype == np.float32
        np.testing.assert_array_equal(read(table), files.COUNTS)
