import numpy as np
import pytest

from c2s_jax.cells import CellDataError, GeneVocabulary


def test_names_are_upper_cased_and_ids_are_places():
    genes = GeneVocabulary(["Cd3d", "LYZ", "HLA-DRA"])
    assert genes.names == ("CD3D", "LYZ", "HLA-DRA")
    assert genes.index["LYZ"] == 1
    assert len(genes) == 3
    assert "lyz" in genes
    assert "ACTB" not in genes
    assert 1 not in genes
    ids = genes.ids(["hla-dra", "CD3D", "CD3D"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 0, 0]
    assert genes.ids([]).shape == (0,)


def test_unknown_names_are_listed():
    with pytest.raises(CellDataError, match=r"2 of 3 gene names are not in .*: FOO, BAR"):
        GeneVocabulary(["CD3D"]).ids(["foo", "CD3D", "bar"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["CD3D", ""], r"1 \(''\)"),
        (["CD3D", "HLA A"], r"1 \('HLA A'\)"),
        (["CD3D "], r"0 \('CD3D '\)"),
        (["Gm1", "LYZ", "GM1"], r"1 gene names are there more than once .*'Gm1' \(row 0\), 'GM1' \(row 2\)"),
    ],
)
def test_bad_names_are_refused_with_their_rows(names, message):
    with pytest.raises(CellDataError, match=message):
        GeneVocabulary(names)


def test_round_trip(tmp_path):
    path = tmp_path / "genes.tsv"
    genes = GeneVocabulary(["CD3D", "LYZ", "nkx2-1"])
    genes.save(path, {"n_cells": [5, 3, 1]})
    assert path.read_text().splitlines() == [
        "gene_id\tsymbol\tn_cells",
        "0\tCD3D\t5",
        "1\tLYZ\t3",
        "2\tNKX2-1\t1",
    ]
    assert GeneVocabulary.load(path) == genes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol\nCD3D\n", "header must begin with gene_id"),
        ("gene_id\tsymbol\n0\tCD3D\n2\tLYZ\n", r"line 3: expected gene_id 1 .*'2\\tLYZ'"),
        ("gene_id\tsymbol\n0\n", "line 2: expected gene_id 0"),
        ("gene_id\tsymbol\n0\tCD3D\n1\tcd3d\n", "more than once"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = tmp_path / "genes.tsv"
    path.write_text(text)
    with pytest.raises(CellDataError, match=message) as error:
        GeneVocabulary.load(path)
    assert "genes.tsv" in str(error.value)


def test_save_refuses_columns_that_would_not_come_back(tmp_path):
    genes = GeneVocabulary(["CD3D"])
    with pytest.raises(CellDataError, match="'n' has 2 values for 1 genes"):
        genes.save(tmp_path / "genes.tsv", {"n": [1, 2]})
    with pytest.raises(CellDataError, match="tab or a line end"):
        genes.save(tmp_path / "genes.tsv", {"note": ["a\tb"]})
