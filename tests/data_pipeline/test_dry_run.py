import dataclasses
import re
import subprocess
import sys
import textwrap

import anndata as ad
import numpy as np
import pytest
from absl import flags
from scipy import sparse

from c2s_jax.data.corpus import Corpus
from data_pipeline import build
from data_pipeline.build import build_corpus
from data_pipeline.dry_run import dry_run
from data_pipeline.readers import matrices, transpose
from data_pipeline.sources import Source
from tests.data_pipeline import cell_files as files

COLUMNS = {"cell_type": "label", "age": "years"}


def lines_of(text: str, what: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.strip().startswith(f"{what} ")]


def test_what_would_be_built(tmp_path):
    source = Source(
        files.h5ad(tmp_path),
        "mine",
        "human",
        COLUMNS,
        abstracts=["About it."],
        spatial_key="spatial",
        radius=0.2,
        spatial_unit="mm",
        captions={"type 0": ["a", "b"]},
        questions=[("q", "a")],
    )
    text, n = dry_run([source], {})
    assert n == 0, text
    assert lines_of(text, "format") == ["h5ad, 40 cells × 25 genes"]
    assert lines_of(text, "genes") == ["Gene0, Gene1, Gene2, Gene3, Gene4, … (25 in all)"]
    size = 40 * 150 + 6 * np.count_nonzero(files.COUNTS)
    per_cell = np.count_nonzero(files.COUNTS) / 40
    assert lines_of(text, "matrix") == [
        f"X: counts (all values are whole numbers); about {per_cell:.0f} genes a cell, {size / 1000:.3g} kB"
    ]
    assert lines_of(text, "field") == [
        "cell_type ← obs['label']: 3 values: type 0 (14), type 1 (13), type 2 (13)",
        "age ← obs['years']: 1 value: 40 (32); 8 cells without",
        "organism: 1 value: human (40)",
    ]
    (place,) = lines_of(text, "coordinates")
    assert place.startswith("obsm['spatial']: 0.9")
    assert place.endswith(" mm, neighbours within 0.2")
    assert lines_of(text, "texts") == ["1 abstract: 'About it.'…", "1 question", "2 captions of 1 value of cell_type"]
    assert text.splitlines()[-2:] == [f"1 data set, 40 cells, about {size / 1000:.3g} kB", "No problems found"]


def test_another_organism_than_the_cells_name(tmp_path):
    adata = files.adata()
    adata.obs["organism"] = "Homo sapiens"
    text, _ = dry_run([Source(adata, "mine", "mouse", COLUMNS), Source(adata, "same", "human", COLUMNS)], {})
    assert [line for line in lines_of(text, "note") if "organism" in line] == [
        "organism is mouse, but obs['organism'] names Homo sapiens"
    ]


def test_dense_matrices_are_estimated_from_a_sample(tmp_path):
    source = Source(files.h5ad(tmp_path), "mine", obs_columns=COLUMNS, expression={"layer": "dense"})
    text, _ = dry_run([source], {"top_k": 4})
    assert f"about {np.count_nonzero(files.COUNTS) / 40:.0f} genes a cell, {40 * (150 + 24) / 1000:.3g} kB" in text


def test_every_problem_of_every_data_set_is_told(tmp_path):
    adata = files.adata()
    adata.X = adata.X.toarray() - 0.5
    adata.layers["nan"] = np.full_like(files.COUNTS, np.nan)
    adata.layers["empty"] = np.zeros_like(files.COUNTS)
    adata.var_names = ["A", "a", *files.GENES[2:]]
    adata.obs["nothing"] = None
    adata.obsm["lost"] = np.full((40, 2), np.nan)
    bad = Source(
        adata,
        "bad",
        obs_columns={"cell_type": "labels", "donor": "nothing", "perturbation": "note"},
        constants={"tissue": "x"},
        captions={"x": ["a"], "y": ["b"]},
        caption_field="tissue",
        control="DMSO",
        spatial_key="lost",
    )
    sources = [
        bad,
        Source(adata, "nan", obs_columns=COLUMNS, expression={"layer": "nan"}),
        Source(adata, "empty", obs_columns=COLUMNS, expression={"layer": "empty", "duplicates": "sum"}),
        Source(tmp_path / "none.h5ad", "absent", obs_columns=COLUMNS),
        Source(files.adata(), "logs", expression={"scale": "log10p", "target_sum": -3.0}),
    ]
    text, n = dry_run(sources, {"split_by": "donor", "stratify": None}, ["corpus.yaml: seed: wrong"])
    for expected in (
        "PROBLEM corpus.yaml: seed: wrong",
        "PROBLEM nan: cannot split by 'donor', no column was given for it",
        f"of 1000 values sampled, {(files.COUNTS == 0).sum()} are negative (scaled or corrected?); usable instead: a",
        "1 gene names become equal when upper-cased: A (A, a)",
        "adata.obs has no column 'labels' (nearest: 'label')",
        "donor: no cell has a value in obs['nothing']",
        "captions of tissue: no cell has 'y'; there are x",
        "control: no cell has 'DMSO'; there are ä0, ä1",
        "bad: obsm['lost'] has no position for 40 of 40 cells",
        "layers['nan'] cannot be ranked: of 1000 values sampled, 1000 are NaN; usable instead: adata.raw",
        "layers['empty'] holds no expressed gene in the cells sampled",
        "input file not found: ",
        "target_sum must be a positive number",
    ):
        assert expected in text
    assert f"{n} problems found" == text.splitlines()[-1]
    assert n == sum("PROBLEM" in line for line in text.splitlines())


def logged() -> ad.AnnData:
    adata = files.adata()
    adata.X = np.log1p(files.COUNTS / 3.3)
    return adata


def with_an_empty_cell() -> ad.AnnData:
    adata = files.adata()
    counts = files.COUNTS.copy()
    counts[5] = 0
    adata.X = sparse.csr_matrix(counts)
    return adata


@pytest.mark.parametrize(
    ("make", "of_source", "options", "message"),
    [
        (logged, {"pseudobulk": ["cell_type"]}, {}, "its values are no whole numbers: pseudobulk is the sum of raw"),
        (files.adata, {}, {"held_out": ({"cell_type": ["type 9"]},)}, "no cell is of the condition cell_type: type 9"),
        (files.adata, {}, {"split_by": "age"}, "cannot split by age: there are 2 to go into 3 splits"),
        (with_an_empty_cell, {"expression": {"empty_cells": "error"}}, {}, "1 of 40 cells express no gene in adata.X"),
        (files.adata, {"min_genes": 4000}, {}, "no cell has min_genes=4000: nothing is left"),
        (files.adata, {"min_cells": 41}, {}, "no gene is in min_cells=41: nothing is left"),
        (
            files.adata,
            {"spatial_key": "spatial", "section": "years"},
            {},
            "spatial: section: adata.obs['years'] has no value for 8 of 40 cells",
        ),
    ],
)
def test_what_stops_the_build_stops_the_dry_run(tmp_path, make, of_source, options, message):
    source = Source(make(), "mine", obs_columns=COLUMNS, **{"expression": {"empty_cells": "drop"}} | of_source)
    text, n = dry_run([source], options)
    assert message in text
    assert n == 1
    with pytest.raises(ValueError, match=re.escape(message)):
        build_corpus(source, tmp_path / "c", **options)


def test_a_sample_proves_nothing_about_genes_elsewhere(tmp_path):
    """Limits that the sampled cells cannot reach, and cells whose other genes were not read."""
    counts = np.random.default_rng(0).poisson(1.0, (2000, 30)).astype(np.float32)
    for layout in (sparse.csr_matrix, sparse.csc_matrix):
        adata = ad.AnnData(layout(counts))
        adata.write_h5ad(tmp_path / "cells.h5ad")
        source = Source(tmp_path / "cells.h5ad", "mine", min_genes=3, min_cells=1200)
        text, n = dry_run([source], {"stratify": None})
        assert n == 0, text
    adata = ad.AnnData(sparse.csr_matrix(counts))
    text, n = dry_run([Source(adata, "mine", min_genes=31)], {"stratify": None})
    assert "in 512 sampled cells: no cell has min_genes=31" in text
    assert n == 1


def test_combinations_are_known_by_one_name(tmp_path):
    adata = files.adata()
    adata.obs["drugs"] = np.array(["ctrl+ctrl", "X+ctrl", "X+Y", "Y+X"])[np.arange(40) % 4]
    columns = {"cell_type": "label", "perturbation": "drugs"}
    source = Source(adata, "mine", obs_columns=columns, control="ctrl", perturbation_separator="+")
    text, n = dry_run([source], {"held_out": ({"perturbation": ["X + Y"]},)})
    assert n == 0, text
    assert lines_of(text, "field")[1] == "perturbation ← obs['drugs']: 3 values: X + Y (20), ctrl (10), X (10)"
    absent = dataclasses.replace(source, obs_columns={"perturbation": "drugs", "cell_type": "lable"})
    text, n = dry_run([absent], {})
    assert n == 1
    assert "adata.obs has no column 'lable'" in text


def test_large_files_are_not_read(tmp_path, monkeypatch):
    big = sparse.random(30_000, 50, 0.2, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    big.data = np.ceil(big.data * 9)
    adata = ad.AnnData(big)
    adata.layers["columns"] = big.tocsc()
    adata.write_h5ad(tmp_path / "big.h5ad")
    read = []
    original = matrices.CompressedRows.rows
    monkeypatch.setattr(matrices.CompressedRows, "rows", lambda *a: read.append(a[2] - a[1]) or original(*a))
    monkeypatch.setattr(transpose, "write_rows", lambda *_: pytest.fail("all of it is read"))
    for layer in (None, "columns"):
        source = Source(tmp_path / "big.h5ad", "big", expression={"layer": layer})
        text, n = dry_run([source], {"stratify": None})
        assert n == 0
        assert "counts (all values are whole numbers); about 10 genes a cell" in text
    assert 0 < sum(read) < 1000


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_pipeline.build", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_tells_and_builds_nothing(tmp_path):
    files.h5ad(tmp_path)
    (tmp_path / "corpus.yaml").write_text("datasets: [{path: cells.h5ad, columns: {cell_type: label}}]\n")
    done = run_command(f"--manifest={tmp_path / 'corpus.yaml'}", f"--output={tmp_path / 'c'}", "--dry-run")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "No problems found")
    assert not (tmp_path / "c").exists()
    done = run_command(f"--input={tmp_path}/*.h5ad", "--label_column=lable", "--dry_run")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "1 problem found")


def parsed(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    build.define_flags(values)
    values(["build", *arguments])
    return values


def test_manifest_builds_a_corpus(tmp_path):
    files.h5ad(tmp_path)
    files.mtx(tmp_path)
    text = """
    datasets:
      - {path: cells.h5ad, columns: {cell_type: label, donor: note}}
      - {path: mtx, name: folder, constants: {cell_type: unknown}}
    split: 50/25/25
    seed: 3
    """
    (tmp_path / "corpus.yaml").write_text(textwrap.dedent(text))
    output = build.run(parsed(f"--manifest={tmp_path / 'corpus.yaml'}", f"--output={tmp_path / 'c'}", "--seed=4"))
    corpus = Corpus(output)
    assert [dataset["name"] for dataset in corpus.datasets] == ["cells", "folder"]
    assert {dataset["provenance"]["seed"] for dataset in corpus.datasets} == {4}  # the command line wins
    assert sum(len(corpus.cells(split)) for split in corpus.splits) == 80
    assert abs(len(corpus.cells("train")) - 40) <= 2


OPTIONS = """
--label_column=label --columns=age=years --constants=tissue=lung --organism=human --layer=dense --scale=counts
--target_sum=1e4 --duplicates=sum --genes_prefix=x --unknown_genes=drop --min_genes=2 --min_cells=3 --radius=2
--spatial_key=spatial --spatial_unit=mm --section=slide --format=h5ad --stratify= --split=8/1/1 --split_by=donor
"""


def test_options_reach_the_source(tmp_path):
    path = files.h5ad(tmp_path)
    (tmp_path / "aliases.tsv").write_text("G0\tGene0\n")
    plan = build.planned(parsed(f"--input={path}", f"--aliases={tmp_path}/aliases.tsv", *OPTIONS.split()))
    assert plan.problems == []
    assert plan.options == {"stratify": None, "split": (0.8, 0.1, 0.1), "split_by": "donor"}
    (source,) = plan.sources
    assert dict(source.aliases) == {"G0": "Gene0"}
    assert source == Source(
        str(path),
        "cells",
        "human",
        COLUMNS,
        {"tissue": "lung"},
        abstracts=[],
        questions=[],
        spatial_key="spatial",
        radius=2.0,
        spatial_unit="mm",
        section="slide",
        expression={
            "layer": "dense",
            "scale": "counts",
            "target_sum": 1e4,
            "duplicates": "sum",
            "empty_cells": "drop",
        },
        aliases=source.aliases,
        genes_prefix="x",
        unknown_genes="drop",
        min_genes=2,
        min_cells=3,
        format="h5ad",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--manifest=corpus.yaml", "--label_column=x"], "--label_column is said in the manifest"),
        (["--manifest=none.yaml"], "manifest not found: none.yaml"),
        ([], "--input is missing"),
        (["--input=none"], "--input: nothing matches 'none'"),
        (["--bundled=pbmc68k_reduced", "--seed=1"], None),
        (["--bundled=pbmc68k_reduced", "--radius=1"], "--radius is given, but bundled"),
        (["--input=x", "--columns=celltype=x"], "--columns.celltype is unknown; did you mean 'cell_type'"),
        (["--input=x", "--tile_side=-1"], "--tile_side: expected a positive number"),
    ],
)
def test_options_that_do_not_go_together(arguments, message):
    if message is None:
        assert build.planned(parsed(*arguments)).sources[0].name == "pbmc68k_reduced"
        return
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build.run(parsed("--output=c", *arguments))
