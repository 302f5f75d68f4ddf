"""The command of biologists, from file to file, on a run of a few steps."""

import hashlib
import os
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

from c2s_jax import cli
from c2s_jax.inference import files, streaming


@pytest.fixture
def cells(pbmc, tmp_path):
    path = tmp_path / "cells.h5ad"
    pbmc.uns["kept"] = {"as": "it was"}
    pbmc.obsm["X_other"] = np.ones((pbmc.n_obs, 2))
    pbmc.write_h5ad(path)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_annotate_and_embed_into_files(run, cells, tmp_path, capsys):
    """The second command goes on from the first one's file; scanpy from the second's."""
    before, out = digest(cells), tmp_path / "out.h5ad"
    cli.main(["annotate", str(cells), f"--model={run}", "-o", str(out), "--labels", "CD19+ B", "CD56+ NK"])
    printed = capsys.readouterr().out
    assert "CD19+ B" in printed
    assert f"Wrote {out}" in printed
    cli.main(["embed", str(out), f"--model={run}", "-o", str(out), "--layer=2"])
    assert digest(cells) == before
    adata, first = sc.read_h5ad(out), sc.read_h5ad(cells)
    assert set(adata.obs["c2s_cell_type"]) <= {"CD19+ B", "CD56+ NK"}
    assert adata.obsm["c2s_cell_type_probabilities"].shape == (39, 2)
    assert adata.obsm["X_c2s"].shape == (39, 32)
    assert set(adata.uns["c2s"]) == {"annotate", "embed"}
    assert adata.uns["kept"] == {"as": "it was"}
    np.testing.assert_array_equal(adata.obsm["X_other"], first.obsm["X_other"])
    np.testing.assert_array_equal(adata.X.toarray(), first.X.toarray())
    sc.pp.neighbors(adata, use_rep="X_c2s", n_neighbors=5)
    assert sorted(p.name for p in tmp_path.glob("*")) == ["cells.h5ad", "out.h5ad"]


def test_a_stopped_command_goes_on(run, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_CELLS", 16)
    out, write = tmp_path / "out.h5ad", files.write_annotated

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_annotated", stop)
    command = ["embed", str(cells), f"--model={run}", "-o", str(out)]
    with pytest.raises(SystemExit, match="give the same command again to go on"):
        cli.main(command)
    assert not out.exists()
    assert len(list((tmp_path / "out.h5ad.parts").glob("*.npz"))) == 3
    monkeypatch.setattr(files, "write_annotated", write)
    cli.main(command)
    assert ad.read_h5ad(out).obsm["X_c2s"].shape == (39, 32)
    assert not (tmp_path / "out.h5ad.parts").exists()


def test_writing_is_whole_or_not_at_all(cells, pbmc, tmp_path, monkeypatch):
    out = tmp_path / "out.h5ad"
    files.write_new(pbmc, out)
    before = digest(out)

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(files, "write_elem", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_annotated(cells, pbmc, out)
    monkeypatch.setattr(ad.AnnData, "write_h5ad", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_new(pbmc, out)
    assert digest(out) == before
    assert not list(tmp_path.glob("*.partial"))


def test_generate_perturb_and_ask(run, cells, tmp_path, capsys):
    out, common = str(tmp_path / "out.h5ad"), [f"--model={run}", "--n-genes=4"]
    cli.main(["generate", *common, "--cell-type", "Dendritic", "CD34+", "-n", "2", "-o", out])
    assert ad.read_h5ad(out).obs["cell_type"].tolist() == ["Dendritic"] * 2 + ["CD34+"] * 2
    cli.main(["perturb", str(cells), *common, "--perturbation=IFN-beta", "-o", out])
    assert ad.read_h5ad(out).n_obs == 39
    cli.main(["ask", str(cells), "What?", *common, "--n-cells=2", "--max-new-tokens=8", "--groupby=phase"])
    captured = capsys.readouterr()
    phases = sorted(set(ad.read_h5ad(cells).obs["phase"]))
    assert [line.split(":")[0] for line in captured.out.splitlines()[-len(phases) :]] == phases
    assert "Note: this model was not trained on question_answering" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["annotate", "absent.h5ad", "-o", "out.h5ad"], "there is no file absent.h5ad"),
        (["annotate", "text.h5ad", "-o", "out.h5ad"], "text.h5ad cannot be read as .h5ad"),
        (["embed", "cells.h5ad", "-o", "out.csv"], "must end in .h5ad"),
        (["embed", "cells.h5ad", "-o", "absent/out.h5ad"], "no folder absent"),
        (["embed", "cells.h5ad", "-o", "out.h5ad", "--layer=77"], "layer=77"),
        (["annotate", "cells.h5ad", "-o", "out.h5ad", "--organism=yeast"], "organism 'yeast' is unknown"),
        (["annotate", "cells.h5ad", "-o", "out.h5ad", "--metadata=tissue=organ"], "no column 'organ'"),
        (["annotate", "no_x.h5ad", "-o", "out.h5ad"], "adata.X is empty; usable instead: adata.layers['counts'] (expr"),
    ],
)
def test_errors_are_one_line(run, cells, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5ad").write_text("no HDF5")
    adata = ad.read_h5ad(cells)
    ad.AnnData(obs=adata.obs, var=adata.var, layers={"counts": adata.X}).write_h5ad(tmp_path / "no_x.h5ad")
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, f"--model={run}"])
    assert message in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize("command", ["generate -n 2 --cell-type Dendritic", "annotate --labels Dendritic"])
def test_a_file_is_no_name(run, cells, capsys, command):
    """A list of names would take the file that follows it."""
    with pytest.raises(SystemExit):
        cli.main([*command.split(), str(cells), f"--model={run}", "-o", str(cells.with_name("out.h5ad"))])
    assert f"{cells} is a file and no name; give the file before the options" in capsys.readouterr().err


def test_help_needs_no_model():
    """And comes without JAX."""
    code = "import sys; from c2s_jax import cli\ntry: cli.main(['--help'])\nfinally: assert 'jax' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert "name the type of each cell" in found.stdout
