"""The same corpus by Apache Beam, two worker processes of its own."""

import filecmp
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.build import build_corpus

pytest.importorskip("apache_beam", reason="needs the extra 'beam'")

OPTIONS = {"obs_columns": {"cell_type": "label"}, "unit_cells": 30}
TWO = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture
def h5ad(tmp_path, make_adata) -> Path:
    path = tmp_path / "cells.h5ad"
    make_adata(n_cells=100).write_h5ad(path)
    return path


def test_beam_writes_the_same_bytes(tmp_path, h5ad):
    one, two = tmp_path / "one", tmp_path / "two"
    command = [
        sys.executable,
        "-m",
        "data_pipeline.build",
        f"--input={h5ad}",
        "--label_column=label",
        "--unit_cells=30",
    ]
    for options in ([f"--output={one}"], [f"--output={two}", "--runner=direct", "--", *TWO]):
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in two.iterdir())
    assert filecmp.cmpfiles(one, two, names, shallow=False)[1] == []


@pytest.mark.parametrize("options", [[], TWO], ids=["one process", "two processes"])
def test_the_error_of_a_step_is_told_as_it_is(tmp_path, h5ad, options):
    with pytest.raises(ValueError, match="^cells.h5ad: .*no column 'labels'"):
        build_corpus(h5ad, tmp_path / "c", obs_columns={"cell_type": "labels"}, runner="direct", beam_options=options)
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]


def test_data_in_memory_is_refused(tmp_path, make_adata):
    with pytest.raises(ValueError, match="write AnnData that is in memory to .h5ad files first"):
        build_corpus(make_adata(), tmp_path / "c", runner="direct", **OPTIONS)
    assert list(tmp_path.iterdir()) == []
