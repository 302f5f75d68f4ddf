"""The notebook, executed with a model of a few steps."""

import os
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parents[2] / "colab" / "inference.ipynb"
PLOTS = ("imshow", "sc.pl.umap", "plot.bar", "plot.barh")


def test_every_cell_runs(run, tmp_path, monkeypatch):
    """And every plot is one; the first cell finds the package and installs nothing."""
    (tmp_path / "configs").mkdir()
    settings = {
        "C2S_MODEL": run,
        "C2S_EVERY": 20,
        "C2S_CELLS": 2,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1]), *sys.path]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear its outputs before committing"
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    if where := os.environ.get("C2S_KEEP_NOTEBOOK"):
        nbformat.write(notebook, where)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [sum("image/png" in o.get("data", {}) for o in cell.outputs) for cell in cells]
    for cell, n in zip(cells, pictures):
        assert n == any(plot in cell.source for plot in PLOTS), cell.source
    assert sum(pictures) == len(PLOTS)
    assert (tmp_path / "annotated.h5ad").is_file()
