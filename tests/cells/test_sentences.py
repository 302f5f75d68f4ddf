import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_jax.cells import (
    GeneVocabulary,
    RepairReport,
    cell_sentences,
    expression_matrix,
    join_sentences,
    repair_sentence,
    split_sentence,
)

GENES = GeneVocabulary(["CD3D", "LYZ", "MS4A1", "GNLY", "AC012.1"])


@pytest.mark.parametrize(
    ("text", "genes", "report"),
    [
        ("LYZ CD3D", ["LYZ", "CD3D"], (2, 2, 0, 0, ())),
        ("LYZ CD3D.", ["LYZ", "CD3D"], (2, 2, 0, 0, ())),
        ("  lyz\nCd3d . \n", ["LYZ", "CD3D"], (2, 2, 0, 0, ())),
        ("LYZ AC012.1", ["LYZ", "AC012.1"], (2, 2, 0, 0, ())),
        ("LYZ AC012.1.", ["LYZ", "AC012.1"], (2, 2, 0, 0, ())),
        ("FOO LYZ bar CD3D FOO", ["LYZ", "CD3D"], (5, 2, 3, 0, ("FOO", "BAR", "FOO"))),
        # LYZ at 0 and 4 moves to 2, before GNLY at 3; MS4A1, first at 2, stays before it
        ("LYZ CD3D MS4A1 GNLY LYZ", ["CD3D", "LYZ", "MS4A1", "GNLY"], (5, 5, 0, 1, ())),
        # unknown words hold no position: LYZ 0 and 2, mean 1, equal to CD3D's and first to occur
        ("LYZ FOO FOO CD3D LYZ", ["LYZ", "CD3D"], (5, 3, 2, 1, ("FOO", "FOO"))),
        ("LYZ LYZ LYZ", ["LYZ"], (3, 3, 0, 2, ())),
        ("", [], (0, 0, 0, 0, ())),
        (" . ", [], (0, 0, 0, 0, ())),
    ],
)
def test_repair(text, genes, report):
    assert repair_sentence(text, GENES) == (genes, RepairReport(*report))
    assert repair_sentence(text, [name.lower() for name in GENES]) == (genes, RepairReport(*report))


@given(st.lists(st.sampled_from([*GENES, "FOO", "BAR"]), max_size=30))
def test_repair_counts_add_up_and_repaired_sentences_stay(words):
    genes, report = repair_sentence(" ".join(words) + ".", GENES)
    assert report.n_words == len(words) == report.n_valid + report.n_unknown
    assert len(report.unknown) == report.n_unknown
    assert len(genes) == len(set(genes)) == report.n_valid - report.n_duplicate
    assert set(genes) == set(words) - {"FOO", "BAR"}
    again, clean = repair_sentence(" ".join(genes), GENES)
    assert again == genes
    assert clean == RepairReport(len(genes), len(genes), 0, 0, ())
    known = [word for word in words if word in GENES]
    means = [sum(i for i, w in enumerate(known) if w == gene) / known.count(gene) for gene in genes]
    assert means == sorted(means)


def test_split_sentence():
    assert split_sentence(" lyz  Cd3d.\n") == ["LYZ", "CD3D"]


def test_real_sentences_round_trip(pbmc):
    cells = expression_matrix(pbmc, use_raw=True)
    sentences = cell_sentences(pbmc, use_raw=True)
    ranked = cells.rank()
    assert len(sentences) == 700
    assert sentences == join_sentences(ranked, cells.genes) == join_sentences(ranked, cells.genes.names)
    for i in (0, 123, 699):
        genes, report = repair_sentence(sentences[i] + ".", cells.genes)
        assert report == RepairReport(len(genes), len(genes), 0, 0, ())
        assert cells.genes.ids(genes).tolist() == ranked[i].tolist()
        assert cells.matrix[i].nnz == len(genes)
        row = cells.matrix[i].toarray().ravel()[ranked[i]]
        assert (row[1:] <= row[:-1]).all()


def test_top_k_is_a_beginning(pbmc):
    whole = cell_sentences(pbmc, use_raw=True)
    short = cell_sentences(pbmc, 20, use_raw=True)
    assert short == [" ".join(sentence.split()[:20]) for sentence in whole]


def test_seed_changes_ties_only(pbmc):
    one, two = (cell_sentences(pbmc, use_raw=True, seed=seed) for seed in (0, 1))
    assert one != two
    assert [sorted(s.split()) for s in one] == [sorted(s.split()) for s in two]
    assert one == cell_sentences(pbmc, use_raw=True)
