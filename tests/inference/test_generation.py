"""Cells that a model makes."""

import dataclasses

import anndata as ad
import numpy as np
import pytest

from c2s_jax.cells import expression_matrix, repair_sentence
from c2s_jax.config import base
from c2s_jax.data import Corpus
from c2s_jax.inference import generation, runs


def test_generated_cells(model, monkeypatch):
    """Expression is read off the line of the training data; what was repaired is told."""
    texts = {}

    def parse_and_keep(texts_, *args):
        texts["all"] = list(texts_)
        return build(texts_, *args)

    build = generation._cells
    monkeypatch.setattr(generation, "_cells", parse_and_keep)
    options = dict(n_genes=12, seed=3, constrain=False, progress=False)
    made = model.generate({"CD19+ B": 2, "Dendritic": 1}, **options)
    assert made.obs["cell_type"].tolist() == ["CD19+ B", "CD19+ B", "Dendritic"]
    line = next(iter(model.card.rank_expression.values()))
    for cell, text in enumerate(texts["all"]):
        genes, report = repair_sentence(text, made.var_names)
        wanted = np.maximum(line.slope * np.log10(1 + np.arange(12)) + line.intercept, 0)
        found = made[cell, genes[:12]].X.toarray()[0]
        np.testing.assert_allclose(found, wanted[: len(found)], rtol=1e-6)
        assert made.X[cell].nnz == len(found) == made.obs["c2s_n_genes"].iloc[cell]
        assert made.obs["c2s_n_unknown"].iloc[cell] == report.n_unknown
    assert made.obs["c2s_n_genes"].max() > 0
    expression_matrix(made, empty_cells="keep")  # reads back, at its logarithm's base
    again = model.generate({"CD19+ B": 2, "Dendritic": 1}, **options)
    assert (made.X != again.X).nnz == 0


def test_only_genes_and_as_many_as_asked(model):
    """By default, from a model that knows next to nothing; several cells of a type differ."""
    made = model.generate(["CD19+ B", "CD34+"], n=18, n_genes=7, progress=False)
    assert made.obs["cell_type"].tolist() == ["CD19+ B"] * 18 + ["CD34+"] * 18
    assert (np.diff(made.X.indptr) == 7).all()
    assert made.obs[["c2s_n_unknown", "c2s_n_repeated"]].to_numpy().sum() == 0
    assert len({tuple(row.indices) for row in made.X}) == 36


@pytest.mark.parametrize("constrain", [True, False])
def test_drafts_change_no_cell(model, monkeypatch, constrain):
    """These names are one token each and the model knows none: that drafts save passes is for the sampler's tests."""
    made, given = [], []
    sample = model.sample

    def watched(*args, **options):
        given.append(options.get("drafts") is not None)
        return sample(*args, **options)

    monkeypatch.setattr(model, "sample", watched)
    for drafts in (False, True):
        options = dict(n=8, n_genes=7, seed=5, constrain=constrain, drafts=drafts, progress=False)
        made.append(model.generate("CD19+ B", **options))
    assert (made[0].X != made[1].X).nnz == 0
    assert given == [False, True]


def test_drafts_need_frequencies(model, bundle, monkeypatch):
    """Counted among the first genes of training cells; a model without them says so."""
    corpus = Corpus(bundle.corpus)
    counts = [0] * len(corpus.genes)
    for cell in corpus.cells("train"):
        for gene in cell.genes[: model.card.n_genes].tolist():
            counts[gene] += 1
    assert list(model.card.gene_counts) == counts
    monkeypatch.setattr(model, "card", dataclasses.replace(model.card, gene_counts=None))
    with pytest.raises(ValueError, match="gene_counts"):
        model.generate("CD19+ B", drafts=True, progress=False)


def test_types_never_met(model):
    with pytest.warns(UserWarning, match=r"no 'CD19\+ b' in training; nearest: CD19\+ B"):
        model.generate("CD19+ b", n_genes=3, progress=False)
    with pytest.raises(ValueError, match="at least one type"):
        model.generate([], progress=False)
    with pytest.raises(ValueError, match="n_genes=0|from 1 to 765"):
        model.generate("Dendritic", n_genes=9999, progress=False)


def test_perturbed_cells(model, pbmc):
    """One prediction a cell, with its annotation; the prompt shows the cell and names the perturbation."""
    with pytest.warns(UserWarning, match="not trained on perturbation_response"):
        made = model.perturb(pbmc[:5].copy(), "IFN-beta", n_genes=8, progress=False)
    assert made.obs_names.tolist() == pbmc.obs_names[:5].tolist()
    assert set(made.obs["perturbation"]) == {"IFN-beta"}
    assert "{cell_sentence}" in made.uns["c2s"]["perturb"]["prompts"][0]
    assert made.uns["c2s"]["perturb"]["settings"]["perturbation"] == "IFN-beta"
    with pytest.raises(ValueError, match="must name"):
        model.perturb(pbmc, " ", progress=False)


def test_sentences_of_training_that_do_not_fit_are_shortened(model, pbmc, monkeypatch):
    """Without a number, as many genes are written as there are and the context has room for, besides the prompt."""
    card = dataclasses.replace(model.card, n_genes=1000, tasks=(*model.card.tasks, "perturbation_response"))
    monkeypatch.setattr(model, "card", card)
    fitting = {}
    for made in (
        model.generate("Dendritic", progress=False),
        model.perturb(pbmc[:2].copy(), "IFN-beta", progress=False),
    ):
        ((function, told),) = made.uns["c2s"].items()
        fitting[function] = told["settings"]["n_genes"]
        assert (np.diff(made.X.indptr) == fitting[function]).all()
        assert any(f"{fitting[function]} genes a cell, not 765" in line for line in told["report"])
    assert 1 < fitting["perturb"] < fitting["generate"] < model.context  # the former shows a cell, too
    with pytest.raises(ValueError, match="leaves no room"):
        model.generate("Dendritic", n_genes=700, progress=False)


def test_a_run_on_whole_sentences_knows_how_long_they_are(bundle):
    config = base()
    config.data.tasks = ("cell_type_conditioned_generation",)
    longest = max(len(cell.genes) for cell in Corpus(bundle.corpus).cells("train"))
    assert runs._card(config, bundle.corpus).n_genes == longest < config.evaluation.max_genes
    config.evaluation.max_genes = 20
    assert runs._card(config, bundle.corpus).n_genes == 20


def test_perturbations_and_types_never_met(model, pbmc, monkeypatch):
    values = {**model.card.values, "perturbation": ("control", "interferon beta")}
    tasks = ("perturbed_cell_generation",)
    monkeypatch.setattr(model, "card", dataclasses.replace(model.card, values=values, tasks=tasks))
    pbmc.obs["cell_type"] = "Dendritik"
    with (
        pytest.warns(UserWarning, match="no 'interferon beth' in training; nearest: interferon beta"),
        pytest.warns(UserWarning, match="no 'Dendritik' in training; nearest: Dendritic"),
    ):
        model.perturb(pbmc[:1].copy(), "interferon beth", n_genes=3, progress=False)


def test_cells_are_labelled_with_what_the_prompt_told(model):
    given = {"organism": "Homo sapiens", "tissue": "blood"}
    with pytest.warns(UserWarning, match="no place for tissue: cells are made without"):
        made = model.generate("Dendritic", n_genes=3, fields=given, progress=False)
    assert "{organism}" in made.uns["c2s"]["generate"]["prompts"][0]
    assert made.uns["c2s"]["generate"]["settings"]["fields"] == {"organism": "human"}
    assert set(made.obs["organism"]) == {"human"}
    assert "tissue" not in made.obs
    with pytest.raises(ValueError, match="cell_type, which is an argument of its own"):
        model.generate("Dendritic", fields={"cell_type": "CD34+"}, progress=False)


def test_answers_are_those_to_the_written_prompt(model, pbmc, monkeypatch):
    """By group, from the cells recorded, whatever their order in the file."""
    asked = []
    sample = model.sample

    def keep(prompts, *args, **options):
        asked.extend(model.tokenizer.decode(p.tolist()) for p in prompts)
        return sample(prompts, *args, **options)

    monkeypatch.setattr(model, "sample", keep)
    short = dict(n_cells=2, max_new_tokens=16, n_genes=5)
    with pytest.warns(UserWarning, match="not trained on question_answering"):
        found = model.ask(pbmc, "Are these\nT cells? ", groupby="bulk_labels", **short)
    told = pbmc.uns["c2s"]["ask"]
    assert list(found) == told["groups"] == sorted(set(pbmc.obs["bulk_labels"]))
    assert list(found.values()) == told["answers"]
    for prompt, group, cells in zip(asked, told["groups"], told["cells"]):
        assert "Are these\nT cells?" in prompt
        assert set(pbmc.obs.loc[cells.split(";"), "bulk_labels"]) == {group}
        assert prompt.count("\nCell ") == len(cells.split(";"))
    with pytest.warns(UserWarning, match="not trained on abstract_generation"):
        text = model.describe(pbmc, **short)
    with pytest.warns(UserWarning, match="not trained on cluster_captioning"):
        captions = model.caption(pbmc, "louvain", **short)
    assert isinstance(text, str)
    assert set(captions) == set(pbmc.obs["louvain"])
    assert {"ask", "describe", "caption"} <= set(pbmc.uns["c2s"])


@pytest.mark.filterwarnings("ignore:this model was not trained", "ignore:Trying to modify")
def test_views_are_answered(model, pbmc, tmp_path):
    """The record goes into what becomes of the view; where nothing can be written, that is said before."""
    view, short = pbmc[:4], dict(n_cells=2, max_new_tokens=8, n_genes=5)
    answer = model.ask(view, "Which?", **short)
    assert view.uns["c2s"]["ask"]["answers"] == [answer]
    assert "c2s" not in pbmc.uns
    pbmc.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match="to_memory"):
        model.ask(backed[:4], "Which?", **short)
    backed.file.close()
