import json
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
from absl import flags

from c2s_jax.cells import cell_sentences, fit_rank_expression
from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.corpus import Corpus
from data_pipeline import build, records
from data_pipeline.build import build_corpus
from data_pipeline.sources import Source

COLUMNS = {"cell_type": "label", "donor": "patient", "age": "years"}


def test_splits_are_stratified_and_cover_all_cells(pbmc, pbmc_corpus):
    corpus = Corpus(pbmc_corpus)
    names = {split: set(corpus.cells(split).cell_ids().tolist()) for split in corpus.splits}
    assert {split: len(n) for split, n in names.items()} == {"train": 490, "validation": 70, "test": 140}
    assert set.union(*names.values()) == set(pbmc.obs_names)
    counts = pbmc.obs["bulk_labels"].value_counts()
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        labels, found = np.unique(corpus.cells(split).fields("cell_type"), return_counts=True)
        for label, n in zip(labels, found, strict=True):
            assert abs(n - share * counts[label]) <= 2


def test_records_hold_the_cells_sentence_and_expression(pbmc, pbmc_corpus):
    corpus = Corpus(pbmc_corpus)
    sentences = dict(zip(pbmc.obs_names, cell_sentences(pbmc, use_raw=True), strict=True))
    raw = pbmc.raw.to_adata()
    genes = [name.upper() for name in raw.var_names]
    for cell in corpus.cells("test"):
        symbols = [corpus.genes.names[g] for g in cell.genes]
        assert " ".join(symbols) == sentences[cell.cell_id]
        row = dict(zip(genes, np.asarray(raw[cell.cell_id].X.todense()).ravel(), strict=True))
        expected = np.array([row[s] for s in symbols]) / np.log(10)  # stored as ln(1 + x)
        np.testing.assert_allclose(cell.expression, expected, rtol=1e-3)
        assert (np.diff(cell.expression) <= 0).all()
        assert cell.fields["cell_type"] == pbmc.obs["bulk_labels"][cell.cell_id]
        assert (cell.fields["organism"], cell.fields["tissue"]) == ("human", "peripheral blood")
        assert cell.fields["donor"] == ""


def test_genes_that_no_cell_expresses_are_kept(tmp_path, make_adata):
    adata = make_adata()
    adata.X[:, 7] = 0
    adata.X.eliminate_zeros()
    corpus = Corpus(build_corpus(adata, tmp_path / "c", obs_columns=COLUMNS))
    assert "GENE7" in corpus.genes
    assert len(corpus.genes) == adata.n_vars


def test_rank_expression_is_fitted_on_the_train_split_alone(pbmc, pbmc_corpus):
    corpus = Corpus(pbmc_corpus)
    train = pbmc[np.isin(pbmc.obs_names, corpus.cells("train").cell_ids())]
    stored = corpus.datasets[0]["rank_expression"]
    expected = fit_rank_expression(train, use_raw=True).to_dict()
    everything = fit_rank_expression(pbmc, use_raw=True).to_dict()
    assert stored == pytest.approx(expected, rel=1e-6)
    assert stored["n_all"] != everything["n_all"]


def test_tfds_opens_it_without_tensorflow(pbmc_corpus):
    script = """
import sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
sizes = {name: len(builder.as_data_source(name)) for name in builder.info.splits}
example = builder.as_data_source("validation")[3]
print(sizes, example["cell_id"].decode(), example["genes"].tolist(), example["expression"].dtype,
      example["coordinates"].shape, example["cell_type"].decode(), sep="|")
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script, str(pbmc_corpus)], capture_output=True, text=True, check=True)
    sizes, cell_id, genes, dtype, shape, label = done.stdout.strip().split("|")
    cell = Corpus(pbmc_corpus).cells("validation")[3]
    assert sizes == "{'train': 490, 'validation': 70, 'test': 140}"
    assert (cell_id, json.loads(genes), label) == (
        cell.cell_id,
        cell.genes.tolist(),
        cell.fields["cell_type"],
    )
    assert (dtype, shape) == ("float16", "(0,)")


def test_serialised_records_are_those_tfds_would_write():
    from tensorflow_datasets.proto import tf_example_pb2

    block = records.Block(
        dataset=3,
        cell_ids=["a", "ü"],
        indptr=np.array([0, 2, 2]),
        genes=np.array([5, 70_000], np.int32),
        expression=np.array([1.5, 0.25], np.float16),
        fields={"cell_type": np.array(["B", "T é"], object)},
        coordinates=np.array([[1, 2], [3, 4]], np.float32),
    )
    features = records.features()
    for i, record in enumerate(block.serialize()):
        part = slice(block.indptr[i], block.indptr[i + 1])
        example = dict.fromkeys(fmt.FIELDS, "") | {
            "cell_id": block.cell_ids[i],
            "dataset": 3,
            "genes": block.genes[part],
            "expression": block.expression[part],
            "coordinates": block.coordinates[i],
            "cell_type": block.fields["cell_type"][i],
        }
        expected = tf_example_pb2.Example.FromString(features.serialize_example(example))
        assert tf_example_pb2.Example.FromString(record) == expected
        assert expected.SerializeToString(deterministic=True) == record


def test_several_files_in_one_corpus(tmp_path, make_adata):
    for seed, first in ((1, 0), (2, 10)):
        make_adata(seed=seed, first_gene=first).write_h5ad(tmp_path / f"set{seed}.h5ad")
    output = tmp_path / "corpus"
    command = [
        sys.executable,
        "-m",
        "data_pipeline.build",
        f"--input={tmp_path}/*.h5ad",
        f"--output={output}",
    ]
    command += ["--label_column=label", "--columns=donor=patient,age=years", "--constants=tissue=lung"]
    done = subprocess.run([*command, "--split=50/25/25"], capture_output=True, text=True, check=True)
    assert "train 60, validation 30, test 30" in done.stdout
    corpus = Corpus(output)
    assert [d["name"] for d in corpus.datasets] == ["set1", "set2"]
    assert sorted(corpus.genes.names) == sorted(f"GENE{i}" for i in range(40))
    cells = corpus.cells("train")
    originals = {seed: ad.read_h5ad(tmp_path / f"set{seed}.h5ad") for seed in (1, 2)}
    for cell in cells:
        adata = originals[cell.dataset + 1]
        row = adata[cell.cell_id]
        expressed = {g.upper() for g in adata.var_names[np.asarray(row.X.todense()).ravel() > 0]}
        assert {corpus.genes.names[g] for g in cell.genes} == expressed
        assert cell.fields["age"] in ("", "40")
        assert cell.fields["tissue"] == "lung"
    keys = list(zip(cells.fields("donor"), cells.dataset_ids.tolist(), strict=True))
    assert len(set(keys)) == len(set(zip(keys, cells.groups.tolist(), strict=True))) == 4
    assert len(set(cells.groups.tolist())) == 4  # equal donor names of two data sets are two donors
    for split in corpus.splits:  # a group has the same id in every split
        other = corpus.cells(split)
        pairs = zip(other.fields("donor"), other.dataset_ids.tolist(), other.groups.tolist(), strict=True)
        known = {(*key, g) for key, g in zip(keys, cells.groups.tolist(), strict=True)}
        assert set(pairs) <= known


def test_same_input_same_files(tmp_path, make_adata):
    for name in ("one", "two"):
        build_corpus(make_adata(), tmp_path / name, obs_columns=COLUMNS, unit_cells=25)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "two").iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_shards_top_k_and_coordinates(tmp_path, make_adata):
    adata = make_adata()
    adata.obsm["spatial"] = np.arange(2.0 * adata.n_obs).reshape(-1, 2)
    source = Source(adata, "s", obs_columns=COLUMNS, spatial_key="spatial", abstracts=["One.", "Two."])
    corpus = Corpus(build_corpus(source, tmp_path / "c", unit_cells=20, top_k=5))
    cells = corpus.cells("train")
    assert [sum(lengths) for lengths in corpus.manifest["shards"].values()] == [42, 6, 12]
    assert len(corpus.manifest["shards"]["train"]) == 3
    assert max(cells.n_genes) == 5
    for cell in cells:
        np.testing.assert_array_equal(cell.coordinates, adata[cell.cell_id].obsm["spatial"][0])
    assert corpus.datasets[0]["abstracts"] == ["One.", "Two."]
    # The fit sees all genes, stored or not.
    assert corpus.datasets[0]["rank_expression"]["n_all"] > 5 * len(cells)


def test_empty_split(tmp_path, make_adata):
    corpus = Corpus(build_corpus(make_adata(), tmp_path / "c", obs_columns=COLUMNS, split=(0.8, 0, 0.2)))
    assert len(corpus.cells("validation")) == 0
    assert corpus.cells("validation").fields("cell_type").size == 0
    assert len(corpus.cells("validation").take([])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs_columns": {"cell_type": "labels"}}, "dataset: .*obs has no column 'labels'.*'label'"),
        ({"obs_columns": {"cell_typ": "label"}}, "'cell_typ' is no field.*'cell_type'"),
        ({"obs_columns": {}}, "cannot stratify by 'cell_type'"),
        ({"obs_columns": COLUMNS, "constants": {"donor": "x"}}, "'donor' of dataset is given both"),
        ({"obs_columns": COLUMNS, "layer": "counts"}, "dataset: .*no 'counts'"),
        ({"obs_columns": COLUMNS, "split": (0.5, 0.5)}, "expected 3 shares"),
        ({"obs_columns": COLUMNS, "split": (0.5, 0.5, 0.5)}, "sum to 1"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, make_adata, change, message):
    with pytest.raises(ValueError, match=message):
        build_corpus(make_adata(), tmp_path / "c", **change)
    assert list(tmp_path.iterdir()) == []


def test_two_data_sets_of_one_name(tmp_path, make_adata):
    paths = [tmp_path / folder / "cells.h5ad" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        make_adata().write_h5ad(path)
    with pytest.raises(ValueError, match="2 data sets are named 'cells'; give each a name of its own"):
        build_corpus(paths, tmp_path / "c", obs_columns=COLUMNS)


def test_a_total_that_is_not_used_is_reported(tmp_path, make_adata):
    counts, logged = make_adata(seed=1), make_adata(seed=2)
    logged.X = logged.X.multiply(1.5).tocsr().log1p()
    sources = [counts, logged]
    corpus = Corpus(build_corpus(sources, tmp_path / "c", obs_columns=COLUMNS, target_sum=500.0))
    said = [d["provenance"]["report"][0] for d in corpus.datasets]
    assert "normalised to a total of 500" in said[0]
    assert ["target_sum=500 is not used, as only counts are normalised" in text for text in said] == [False, True]


def test_input_that_cannot_be_read(tmp_path):
    (tmp_path / "x.h5ad").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"x\.h5ad"):
        build_corpus(tmp_path / "x.h5ad", tmp_path / "c", obs_columns=COLUMNS)
    with pytest.raises(FileNotFoundError, match=r"y\.h5ad"):
        build_corpus(tmp_path / "y.h5ad", tmp_path / "c", obs_columns=COLUMNS)
    with pytest.raises(ValueError, match="no input"):
        build_corpus([], tmp_path / "c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input=none/*.h5ad"], r"nothing matches 'none/\*\.h5ad'"),
        (["--bundled=pbmc68k_reduced", "--split=7/3"], "expected train/validation/test"),
        (["--bundled=pbmc68k_reduced", "--columns=donor"], "--columns is given, but bundled cells have settings of"),
        (["--bundled=pbmc68k_reduced", "--organism=mouse"], "--organism is given, but bundled"),
        (["--input=x", "--columns=donor"], "'donor' is not of the form field=value"),
    ],
)
def test_bad_options(tmp_path, arguments, message):
    values = flags.FlagValues()
    build.define_flags(values)
    values(["build", f"--output={tmp_path / 'c'}", *arguments])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build.run(values)


def test_command_line_says_what_is_wrong_in_one_line(tmp_path):
    command = [sys.executable, "-m", "data_pipeline.build", f"--output={tmp_path / 'c'}", "--input=none"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: --input: nothing matches 'none'\n"
