"""Vectors of cells against the published recipe with torch's layers."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells import CellDataError
from c2s_jax.encoders import CellEncoder, load_cell_encoder
from tests.encoders.test_binning import reference as reference_bins
from tests.models.scgpt_oracle import GENES, Reference, write_folder

# Some genes that the model does not know, in between.
COLUMNS = [name for i, gene in enumerate(GENES) for name in ([gene, f"other{i}"] if i % 4 == 0 else [gene])]
KNOWN = np.array([name in GENES for name in COLUMNS])


@pytest.fixture(scope="module")
def theirs() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cells") / "scgpt", theirs)


@pytest.fixture(scope="module")
def encoder(folder) -> CellEncoder:
    return load_cell_encoder(folder, batch_size=8)


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 2.0, len(COLUMNS)) * rng.gamma(1.0, 1.0, (21, 1))).astype(np.float32)
    counts[4, KNOWN] = 0  # expresses nothing that the model knows
    cells = ad.AnnData(sparse.csr_matrix(counts))
    cells.obs_names = [f"cell{i}" for i in range(21)]
    cells.var_names = COLUMNS
    return cells


def reference(theirs: Reference, row: NDArray, uniforms: NDArray) -> NDArray:
    """One cell, alone: bins of the known genes, ``<cls>`` before them, its last state at length 1."""
    values = row[KNOWN]
    at = np.flatnonzero(values)
    bins = reference_bins(values[at], uniforms, 51) if len(at) else np.zeros(0)
    genes = torch.tensor([[len(GENES) + 1, *at]])
    hidden = theirs(genes, torch.tensor([[-2.0, *bins]]), torch.zeros(genes.shape, dtype=torch.bool))[0, 0].numpy()
    return hidden / np.linalg.norm(hidden)


def test_vectors_with_given_uniforms(theirs, encoder, adata) -> None:
    known = adata[:, KNOWN].X
    uniforms = np.random.default_rng(1).random(known.nnz)
    found = encoder.encode(adata.X, COLUMNS, adata.obs_names, uniforms=uniforms)
    assert found.dtype == np.float32
    for row, vector in enumerate(found):
        part = uniforms[known.indptr[row] : known.indptr[row + 1]]
        expected = reference(theirs, adata.X[row].toarray()[0], part)
        np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-5)
    midpoint = encoder.encode(adata.X, COLUMNS, adata.obs_names, uniforms=np.full(known.nnz, 0.5))
    np.testing.assert_array_equal(encoder.encode_cells(adata, ties="midpoint"), midpoint)
    assert np.abs(midpoint - found).max() > 1e-2


def test_vectors_depend_on_the_cell_and_the_seed_alone(encoder, adata) -> None:
    vectors = encoder.encode_cells(adata)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    order = np.random.default_rng(0).permutation(len(COLUMNS))
    other = adata[::-2, order].copy()
    np.testing.assert_allclose(encoder.encode_cells(other), vectors[::-2], rtol=0, atol=1e-5)
    assert np.abs(encoder.encode_cells(adata, seed=1) - vectors).max() > 1e-2
    again = adata.copy()
    again.layers["counts"], again.X, again.var["symbol"] = again.X, None, again.var_names
    again.var_names = [f"ENSG{i}" for i in range(len(COLUMNS))]
    np.testing.assert_array_equal(encoder.encode_cells(again, layer="counts", gene_symbols="symbol"), vectors)


def test_long_cells_are_read_in_part(theirs, folder, adata) -> None:
    """Bins are of all values; a keyed subset of the genes is read, ``<cls>`` always."""
    seen: list = []
    encoder = load_cell_encoder(folder, max_length=8, batch_size=32)
    run = encoder._run
    encoder._run = lambda *parts: (seen.append(parts), run(*parts))[1]  # type: ignore[method-assign]
    vectors = encoder.encode_cells(adata, ties="midpoint")
    genes, bins, indptr = seen[0]
    known = adata[:, KNOWN].X
    np.testing.assert_array_equal(np.diff(indptr), np.minimum(np.diff(known.indptr), 7))
    for row in range(adata.n_obs):
        values = known[row].toarray()[0]
        at = np.flatnonzero(values)
        whole = dict(zip(at, reference_bins(values[at], np.full(len(at), 0.5), 51))) if len(at) else {}
        part = slice(indptr[row], indptr[row + 1])
        assert len(set(genes[part])) == indptr[row + 1] - indptr[row]
        assert all(whole[gene] == value for gene, value in zip(genes[part], bins[part]))
    other = encoder.encode_cells(adata, ties="midpoint", seed=1)
    long = np.diff(known.indptr) > 7
    assert long.sum() > 10
    assert (np.abs(vectors - other).max(1) > 1e-3)[long].all()
    np.testing.assert_array_equal(vectors[~long], other[~long])


def test_backed_and_in_blocks(encoder, adata, tmp_path, monkeypatch) -> None:
    adata.write_h5ad(tmp_path / "x.h5ad")
    whole = encoder.encode_cells(adata)
    monkeypatch.setattr("c2s_jax.encoders.cells.BLOCK", 5)
    np.testing.assert_allclose(encoder.encode_cells(ad.read_h5ad(tmp_path / "x.h5ad", backed="r")), whole, atol=1e-5)


def test_errors(encoder, adata, folder) -> None:
    other = adata.copy()
    other.var_names = [f"ENSG{i}" for i in range(len(COLUMNS))]
    with pytest.raises(CellDataError, match=r"scGPT knows none of the 75 genes \('ENSG0', .*; it takes symbols"):
        encoder.encode_cells(other)
    with pytest.raises(CellDataError, match="no column 'symbol'"):
        encoder.encode_cells(adata, gene_symbols="symbol")
    other = adata.copy()
    other.X.data[3] = -1
    with pytest.raises(CellDataError, match=r"adata\.X holds 1 negative values"):
        encoder.encode_cells(other)
    with pytest.raises(ValueError, match="ties='random' is not one of"):
        encoder.encode_cells(adata, ties="random")
    with pytest.raises(ValueError, match=r"uniforms must be .* numbers in \[0, 1\)"):
        encoder.encode(adata.X, COLUMNS, adata.obs_names, uniforms=np.zeros(3))
    with pytest.raises(ValueError, match="max_length=1 leaves no room"):
        load_cell_encoder(folder, max_length=1)
