"""Questions, gene sets and interactions of a corpus."""

from types import SimpleNamespace

import numpy as np
import pytest

from c2s_jax.data.corpus import Corpus
from data_pipeline.build import build_corpus
from data_pipeline.knowledge import gene_set_lines, keyed_splits, question_lines
from data_pipeline.sources import Source

COLUMNS = {"cell_type": "label", "donor": "patient"}


def gene_set(name, genes) -> SimpleNamespace:
    return SimpleNamespace(name=name, description=f"About {name}.", source="made up", genes=genes)


def interaction(a, b, kind="ligand-receptor") -> SimpleNamespace:
    return SimpleNamespace(source="made up", kind=kind, a=a, b=b)


def test_they_are_read_as_they_were_given(tmp_path, make_adata):
    questions = [("What is it?", "Ä cell."), ("Why?", "Because.")]
    sources = [
        Source(make_adata(seed=0), "one", obs_columns=COLUMNS),
        Source(
            make_adata(seed=1),
            "two",
            obs_columns=COLUMNS | {"perturbation": "patient"},
            questions=questions,
            captions={"type 0": ["A caption.", "Another."]},
            control="donor 0",
        ),
    ]
    sets = [
        gene_set("whole", [f"gene{i}" for i in (9, 3, 4, 5, 6)]),
        gene_set("partly", ["GENE1", "Gene2", "NONE", "gene3", "GENE4", "GENE5", "GENE5"]),
        gene_set("too small", ["GENE1", "GENE2", "GENE3", "GENE4", "NONE"]),
    ]
    pairs = [
        interaction(["Gene1"], ["GENE2", "gene3"]),
        interaction(["GENE1"], ["GENE2", "NONE"]),
        interaction([], ["GENE2"]),
    ]
    corpus = Corpus(build_corpus(sources, tmp_path / "c", gene_sets=sets, interactions=iter(pairs)))
    names = corpus.genes.names
    assert [s.name for s in corpus.gene_sets] == ["whole", "partly"]
    assert [names[g] for g in corpus.gene_sets[0].genes] == ["GENE9", "GENE3", "GENE4", "GENE5", "GENE6"]
    assert [names[g] for g in corpus.gene_sets[1].genes] == ["GENE1", "GENE2", "GENE3", "GENE4", "GENE5"]
    assert corpus.gene_sets[0].genes.dtype == np.int32
    assert (corpus.gene_sets[0].description, corpus.gene_sets[0].source) == ("About whole.", "made up")
    assert {s.split for s in corpus.gene_sets} <= set(corpus.splits)
    (found,) = corpus.interactions
    assert ([names[g] for g in found.a], [names[g] for g in found.b]) == (["GENE1"], ["GENE2", "GENE3"])
    assert (found.source, found.kind) == ("made up", "ligand-receptor")
    assert [(q.dataset, q.question, q.answer) for q in corpus.questions] == [(1, *pair) for pair in questions]
    about_sets, about_pairs = corpus.manifest["report"]
    assert about_sets.startswith("2 of 3 gene sets have 5 genes of the corpus or more and are kept; 2 names of genes")
    assert about_pairs == "1 of 3 interactions have all their genes in the corpus and are kept"
    assert [d["captions"] for d in corpus.datasets] == [{}, {"type 0": ["A caption.", "Another."]}]
    assert [(d["caption_field"], d["control"]) for d in corpus.datasets] == [
        ("cell_type", ""),
        ("cell_type", "donor 0"),
    ]
    corpus.verify()


def test_files_that_would_be_empty_are_not_there(tmp_path, make_adata):
    corpus = Corpus(build_corpus(make_adata(), tmp_path / "c", obs_columns=COLUMNS))
    assert (corpus.questions, corpus.gene_sets, corpus.interactions) == ([], [], [])
    assert sorted(p.name for p in corpus.path.glob("*.jsonl")) == ["datasets.jsonl"]


def test_splits_of_names_are_keyed_and_shared_out():
    names = [f"set {i}" for i in range(2000)]
    splits = keyed_splits(names, (0.7, 0.1, 0.2), 0, "gene set")
    shares = [splits.count(name) / 2000 for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    assert keyed_splits(names[::-1], (0.7, 0.1, 0.2), 0, "gene set") == splits[::-1]
    assert keyed_splits(names, (0.7, 0.1, 0.2), 1, "gene set") != splits
    assert set(keyed_splits(names, (0.5, 0.0, 0.5), 0, "gene set")) == {"train", "test"}
    assert keyed_splits(["A"], (0.5, 0.0, 0.5), 0, "x") == keyed_splits(["a"], (0.5, 0.0, 0.5), 0, "x")


def test_a_set_keeps_its_split_whatever_else_is_there():
    genes = {f"G{i}": i for i in range(9)}
    sets = [gene_set(f"set {i}", list(genes)) for i in range(30)]
    every = {line["name"]: line["split"] for line in gene_set_lines(sets, genes, (0.5, 0.0, 0.5), 0)[0]}
    some = {line["name"]: line["split"] for line in gene_set_lines(sets[7:9], genes, (0.5, 0.0, 0.5), 0)[0]}
    assert some.items() <= every.items()
    assert len(set(every.values())) == 2


def test_questions_follow_a_data_set_that_is_in_one_split(tmp_path, make_adata):
    asked = [(f"Question {i}?", "Yes.") for i in range(20)]
    sources = [Source(make_adata(seed=i), f"s{i}", obs_columns=COLUMNS, questions=asked) for i in range(3)]
    corpus = Corpus(build_corpus(sources, tmp_path / "c", split_by="dataset", split=(0.4, 0.3, 0.3)))
    for number, dataset in enumerate(corpus.datasets):
        (split,) = [name for name in corpus.splits if dataset["counts"][name]]
        assert {q.split for q in corpus.questions if q.dataset == number} == {split}
    spread = question_lines([asked, asked], (0.5, 0.0, 0.5), 0, {})
    assert [line["split"] for line in spread[:20]] == [line["split"] for line in spread[20:]]
    assert len({line["split"] for line in spread}) == 2
