"""Copies of cells, within a data set and across."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from c2s_jax.data.corpus import Corpus
from data_pipeline.build import build_corpus
from data_pipeline.duplicates import bare_barcode, copy_keys, find_copies, gene_hashes
from data_pipeline.sources import Source

BARCODES = ["".join(letters) for letters in np.random.default_rng(5).choice(list("ACGT"), (200, 16))]


def atlas(rows, names, seed=0, genes=80, **obs) -> ad.AnnData:
    """Cells `rows` of one big experiment, whatever file they are in."""
    x = np.random.default_rng(seed).poisson(2.0, (200, genes)).astype(np.float32)[rows]
    adata = ad.AnnData(sparse.csr_matrix(x), var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))
    adata.obs_names = list(names)
    adata.obs["type"] = [f"type {r % 3}" for r in rows]
    for name, values in obs.items():
        adata.obs[name] = values
    return adata


def source(adata, name, **columns) -> Source:
    return Source(adata, name, obs_columns={"cell_type": "type", **columns})


@pytest.mark.parametrize(
    ("cell_id", "expected"),
    [
        ("AAACCTGAGAAACCAT", "AAACCTGAGAAACCAT"),
        ("AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCAT"),
        ("AAACCTGAGAAACCAT-1-0", "AAACCTGAGAAACCAT"),
        ("lung_7:AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCAT"),
        ("GSM1_AAACCTGAGA.CCATGGTTAA_x", "AAACCTGAGACCATGGTTAA"),
        ("sampleA_cell_45-1", "45"),
        ("cell_45", "45"),
        ("-", "-"),
    ],
)
def test_bare_barcodes(cell_id, expected):
    assert bare_barcode(cell_id) == expected


def test_keys_know_the_cell_by_barcode_and_content():
    x = np.random.default_rng(0).poisson(2.0, (3, 60)).astype(np.float32)
    genes = [f"G{i}" for i in range(60)]
    keys = copy_keys(BARCODES[:3], sparse.csr_matrix(x), gene_hashes(genes))
    assert len(set(keys.tolist())) == 3
    order = np.random.default_rng(1).permutation(60)
    shuffled = sparse.csr_matrix(np.hstack([np.zeros((3, 5)), x[:, order]]))
    names = [*(f"OTHER{i}" for i in range(5)), *(genes[i].lower() for i in order)]
    suffixed = [f"x_{b}-1" for b in BARCODES[:3]]
    np.testing.assert_array_equal(copy_keys(suffixed, shuffled.astype(np.int64), gene_hashes(names)), keys)
    x[0, np.flatnonzero(x[0])[0]] += 1
    assert (copy_keys(BARCODES[:3], sparse.csr_matrix(x), gene_hashes(genes)) != keys).tolist() == [True, False, False]
    assert (copy_keys(BARCODES[3:6], sparse.csr_matrix(x), gene_hashes(genes)) != keys).all()


def test_values_in_each_others_places_are_another_cell():
    genes = gene_hashes([f"G{i}" for i in range(40)])
    x = np.full((2, 40), 1.0)
    x[0, 3], x[1, 4] = 2, 2
    one, two = copy_keys(["A" * 16, "A" * 16], sparse.csr_matrix(x), genes)
    assert one != two


def test_cells_of_few_genes_are_not_taken_for_each_other():
    """On a small panel two cells of different fields of view may well have the same counts and number."""
    x = sparse.csr_matrix(np.ones((3, 6)))
    keys = copy_keys(["fov1_45", "fov2_45", "fov1_45"], x, gene_hashes(list("ABCDEF")))
    assert (keys[0] != keys[1], keys[0] == keys[2]) == (True, True)


def test_classes_and_repeats():
    keys = [np.array([5, 7, 5, 9], np.uint64), np.array([9, 7, 1], np.uint64)]
    kept = [np.array([True, True, True, True]), np.array([True, False, True])]
    copies = find_copies(keys, kept)
    assert [c.tolist() for c in copies.classes] == [[0, -1, 0, 1], [1, -1, -1]]
    assert [r.tolist() for r in copies.repeats()] == [[False, False, True, False], [True, False, False]]
    assert [c.tolist() for c in find_copies([np.arange(3, dtype=np.uint64)], [np.ones(3, bool)]).classes] == [[-1] * 3]


def two_files(**obs):
    """Cells 0–59, with two copied within; and cells 40–99 under other names."""
    first = atlas(
        [*range(60), 3, 4], [*(f"{BARCODES[i]}-1" for i in range(60)), f"{BARCODES[3]}-2", f"b_{BARCODES[4]}"]
    )
    second = atlas(range(40, 100), [f"run2_{BARCODES[i]}-1-0" for i in range(40, 100)])
    for adata, name in ((first, "one"), (second, "two")):
        for field in obs:
            adata.obs[field] = [f"{name} {i % 9}" for i in range(adata.n_obs)]
    return [source(first, "one", **obs), source(second, "two", **obs)]


def splits_of(corpus: Corpus) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for split in corpus.splits:
        for name in corpus.cells(split).cell_ids().tolist():
            found.setdefault(bare_barcode(name), set()).add(split)
    return found


@pytest.mark.parametrize("grouped", [False, True])
def test_copies_that_stay_share_a_split(tmp_path, grouped):
    options = {"split_by": "donor", "split": (0.5, 0.0, 0.5)} if grouped else {}
    corpus = Corpus(build_corpus(two_files(donor="donor"), tmp_path / "c", **options))
    assert sum(corpus.manifest["records"].values()) == 122
    assert all(len(splits) == 1 for splits in splits_of(corpus).values())
    assert len(set.union(*splits_of(corpus).values())) == (2 if grouped else 3)
    text = "22 cells have the barcode and the counts of a cell before them"
    assert any(line.startswith(text) and "same split" in line for line in corpus.manifest["report"])
    lines = [[x for x in d["provenance"]["report"] if "barcode" in x] for d in corpus.datasets]
    assert [line[0].split()[0] for line in lines] == ["2", "20"]


def test_copies_are_dropped_but_for_the_first(tmp_path):
    corpus = Corpus(build_corpus(two_files(), tmp_path / "c", duplicates_cells="drop"))
    names = [name for split in corpus.splits for name in corpus.cells(split).cell_ids().tolist()]
    assert len(names) == len({bare_barcode(name) for name in names}) == 100
    assert {f"{b}-1" for b in BARCODES[:60]} < set(names)
    assert [d["counts"]["cells"] for d in corpus.datasets] == [60, 40]


def test_copies_as_an_error_name_two_cells(tmp_path):
    expected = rf"22 cells have .*'{BARCODES[3]}-2' of one and '{BARCODES[3]}-1' of one.*duplicates_cells='drop'"
    with pytest.raises(ValueError, match=expected):
        build_corpus(two_files(), tmp_path / "c", duplicates_cells="error")
    assert list(tmp_path.iterdir()) == []


def test_without_copies_nothing_is_said(tmp_path):
    corpus = Corpus(build_corpus(two_files()[1], tmp_path / "c", duplicates_cells="error"))
    assert corpus.manifest["report"] == []
