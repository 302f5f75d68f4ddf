"""Files for other tools hold the cells they should, in the units these tools expect."""

import anndata
import numpy as np
import pytest
from sklearn.decomposition import PCA

from c2s_jax.evaluation import exports

RNG = np.random.default_rng(0)
GENES = [f"G{i}" for i in range(12)]
REAL, MADE, CONTROL = (RNG.random((n, 12)).astype(np.float32) for n in (6, 6, 4))
OBS = {"perturbation": np.repeat(["drug", "IFN"], 3), "cell_type": np.array(["B", "T"] * 3)}
CONTROLS = {"cell_type": np.array(["B", "T"] * 2)}


def write(folder, formats, **changes):
    settings = dict(real=REAL, generated=MADE, control=CONTROL, obs=OBS, control_obs=CONTROLS, genes=GENES)
    return exports.write_perturbed(folder, formats, **settings | {"space": PCA(3).fit(REAL)} | changes)


def test_cell_eval(tmp_path):
    paths = write(tmp_path / "exports", ("cell-eval",))
    assert [p.name for p in paths] == ["cell_eval_real.h5ad", "cell_eval_pred.h5ad"]
    for path, cells in zip(paths, (REAL, MADE)):
        found = anndata.read_h5ad(path)
        counts = np.expm1(found.X.toarray())
        np.testing.assert_allclose(counts, 10.0 ** np.concatenate([cells, CONTROL]) - 1, rtol=1e-5)
        assert found.obs["target"].tolist() == ["drug"] * 3 + ["IFN"] * 3 + ["non-targeting"] * 4
        assert found.obs["cell_type"].tolist() == ["B", "T"] * 5
        assert found.var_names.tolist() == GENES


def test_pertpy(tmp_path):
    (path,) = write(tmp_path, ("pertpy",))
    found = anndata.read_h5ad(path)
    groups = found.obs["group"]
    assert set(groups) == {"drug | real", "IFN | real", "drug | generated", "IFN | generated", "control"}
    made = found[groups == "IFN | generated"]
    np.testing.assert_allclose(made.X.toarray() / np.log(10), MADE[3:], rtol=1e-5)
    np.testing.assert_allclose(made.obsm["X_pca"], PCA(3).fit(REAL).transform(MADE[3:]), atol=1e-5)
    assert set(made.obs["perturbation"]) == {"IFN"}


def test_scib_metrics(tmp_path):
    path = exports.write_embedded(
        tmp_path,
        expression=REAL,
        embeddings={"X_c2s": REAL[:, :2], "X_pca": REAL[:, 2:5]},
        obs={"cell_type": OBS["cell_type"], "batch": OBS["perturbation"]},
        genes=GENES,
    )
    found = anndata.read_h5ad(path)
    np.testing.assert_array_equal(found.obsm["X_c2s"], REAL[:, :2])
    assert found.obs["batch"].dtype == "category"
    assert not list(tmp_path.glob("*.new"))


def test_what_cannot_be_exported(tmp_path):
    exports.check(("cell-eval", "scib-metrics"), ("perturbation", "embedding"))
    with pytest.raises(ValueError, match="names 'csv'; there are cell-eval, pertpy, scib-metrics"):
        exports.check(("csv",), ())
    with pytest.raises(ValueError, match="'scib-metrics' needs the suite 'embedding'"):
        exports.check(("scib-metrics",), ("perturbation",))
    with pytest.raises(ValueError, match='a perturbation is called "control"'):
        write(tmp_path, ("pertpy",), obs=OBS | {"perturbation": np.array(["control"] * 6)})
