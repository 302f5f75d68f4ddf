import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from c2s_jax.cells import CellDataError
from c2s_jax.cells.pseudobulk import pseudobulk, sample_cells


@pytest.fixture
def adata() -> ad.AnnData:
    """Counts of 200 cells in shuffled groups of very different size, some without a donor or a type."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (200, 12)).astype(np.float32)
    counts[:, 0] += 1
    adata = ad.AnnData(sparse.csr_matrix(counts))
    adata.obs_names = [f"cell{i}" for i in range(200)]
    adata.var_names = [f"GENE{i}" for i in range(12)]
    adata.obs["donor"] = pd.Categorical(rng.choice(["d1", "d2", "d3"], 200, p=[0.7, 0.2, 0.1]))
    adata.obs["type"] = rng.choice(["B", "T_x", ""], 200, p=[0.5, 0.4, 0.1])
    adata.obs["batch"] = rng.integers(1, 3, 200)
    adata.obs.loc[adata.obs_names[:5], "donor"] = np.nan
    adata.obs["sex"] = adata.obs["donor"].map({"d1": "female", "d2": "male", "d3": "male"})
    adata.obs["depth"] = counts.sum(1)
    adata.layers["logged"] = sparse.csr_matrix(np.log1p(counts))
    return adata


def test_sums_are_scanpys(adata):
    known = adata[adata.obs["donor"].notna() & (adata.obs["type"] != "")].copy()
    expected = sc.get.aggregate(known, ["donor", "type", "batch"], "sum")
    expected = expected[
        known.obs.groupby(["donor", "type", "batch"], observed=True).size().index.map("{0[0]}_{0[1]}_{0[2]}".format)
    ]
    found = pseudobulk(adata, ["donor", "type", "batch"])
    assert found.obs_names.tolist() == expected.obs_names.tolist()
    np.testing.assert_array_equal(found.X.toarray(), expected.layers["sum"])
    sizes = known.obs.groupby(["donor", "type", "batch"], observed=True).size()
    assert found.obs["n_cells"].tolist() == sizes.tolist()
    assert found.X.dtype == np.int64
    assert found.X.format == "csr"
    assert found.var_names.tolist() == adata.var_names.tolist()


def test_obs_keeps_what_groups_agree_in(adata):
    found = pseudobulk(adata, ["donor", "batch"])
    assert found.obs.columns.tolist() == ["donor", "batch", "sex", "n_cells"]
    assert found.obs.loc["d2_1", "sex"] == "male"
    assert found.obs.loc["d1_2", ["donor", "batch"]].tolist() == ["d1", 2]


@pytest.mark.parametrize("change", ["dense", "csc", "int", "layer", "backed"])
def test_any_storage(adata, tmp_path, change):
    expected = pseudobulk(adata, "donor")
    layer = None
    if change == "dense":
        adata.X = adata.X.toarray()
    elif change == "csc":
        adata.X = adata.X.tocsc()
    elif change == "int":
        assert adata.X.max() * 30 < 256
        adata.X = adata.X.astype(np.uint8)
        adata.X.data *= 30  # sums beyond what the type holds
        expected.X = expected.X * 30
    elif change == "layer":
        adata.layers["counts"], layer = adata.X, "counts"
        adata.X = adata.layers["logged"]
    else:
        adata.write_h5ad(tmp_path / "file.h5ad")
        adata = ad.read_h5ad(tmp_path / "file.h5ad", backed="r")
    np.testing.assert_array_equal(pseudobulk(adata, "donor", layer=layer).X.toarray(), expected.X.toarray())


def test_small_groups_are_left_out(adata):
    sizes = pseudobulk(adata, ["donor", "type"]).obs["n_cells"]
    limit = int(sizes.median())
    kept = pseudobulk(adata, ["donor", "type"], min_cells=limit)
    assert kept.obs_names.tolist() == sizes.index[sizes >= limit].tolist()
    assert 0 < kept.n_obs < len(sizes)
    assert (kept.X.toarray() == pseudobulk(adata, ["donor", "type"])[kept.obs_names].X.toarray()).all()


def test_names_that_would_clash(adata):
    adata.obs["a"] = np.where(np.arange(200) % 2, "x", "x_y")
    adata.obs["b"] = np.where(np.arange(200) % 2, "y_z", "z")
    assert pseudobulk(adata, ["a", "b"]).obs_names.tolist() == ["x_y_z", "x_y_z-1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "doner"}, r"no column 'doner' \(nearest: 'donor'\)"),
        ({"by": []}, "name at least one column"),
        (
            {"by": "donor", "layer": "logged"},
            r"layers\['logged'\] does not hold raw counts.*first: 1\.09861 in cell 'cell0'.*: adata\.X$",
        ),
        ({"by": "donor", "layer": "count"}, "no 'count'"),
        ({"by": "donor", "min_cells": 500}, r"has 500 cells or more \(3 groups, the largest of 1\d\d\)"),
    ],
)
def test_unusable(adata, arguments, message):
    with pytest.raises(CellDataError, match=message):
        pseudobulk(adata, **arguments)


def test_no_counts_says_where_counts_are(adata):
    adata.layers["raw"] = adata.X.copy()
    adata.X = adata.layers["logged"]
    with pytest.raises(CellDataError, match=r"adata\.X does not hold raw counts.*counts there are: layer='raw'$"):
        pseudobulk(adata, "donor")


def test_sample_takes_n_of_each_group(adata):
    rows = sample_cells(adata.obs, ["donor", "type"], 10, seed=1)
    assert (np.diff(rows) > 0).all()
    sizes = adata.obs[adata.obs["type"] != ""].groupby(["donor", "type"], observed=True).size()
    assert sizes.min() < 10 < sizes.max()
    drawn = adata.obs.iloc[rows].groupby(["donor", "type"], observed=True).size()
    assert drawn.to_dict() == sizes.clip(upper=10).to_dict()


def test_sample_depends_on_names_and_seed_alone(adata):
    def names(obs: pd.DataFrame, seed: int = 1) -> set[str]:
        return set(obs.index[sample_cells(obs, "donor", 10, seed)])

    drawn = names(adata.obs)
    shuffled = adata.obs.sample(frac=1, random_state=0)
    assert names(shuffled) == drawn
    alone = adata.obs[adata.obs["donor"] == "d1"]
    assert names(alone) == drawn & set(alone.index)
    assert names(adata.obs, seed=2) != drawn
    assert len(names(adata.obs, seed=2) & drawn) < 25
    with pytest.raises(CellDataError, match="n is 0"):
        sample_cells(adata.obs, "donor", 0)
