"""Annotation and embeddings of real cells, against the model's full pass over written-out text."""

import json
from functools import cache

import anndata as ad
import jax
import numpy as np
import pytest
import scanpy as sc
from scipy.special import log_softmax, logsumexp

import c2s_jax
from c2s_jax import convert
from c2s_jax.cells import cell_sentences
from c2s_jax.data import Corpus
from c2s_jax.inference import Model
from c2s_jax.tasks import load_templates

TEMPLATES = load_templates("cell_type_annotation")
N_GENES = 24
QUIET = dict(progress=False)


@pytest.fixture(scope="module")
def full(model: Model):
    """Hidden states and log-probabilities of one text alone, without padding or cache."""
    run = jax.jit(lambda tokens: (model.module.hidden(tokens), jax.nn.log_softmax(model.module(tokens))))

    @cache
    def read(text: str):
        tokens = np.array([[model.tokenizer.bos_id, *model.tokenizer.encode(text)]], np.int32)
        # one shape, so that one program serves all; what comes after does not matter to what is before
        padded = np.pad(tokens, [(0, 0), (0, 160 - tokens.shape[1])])
        hidden, logprobs = run(padded)
        return tokens[0], np.asarray(hidden[0]), np.asarray(logprobs[0])

    return read


def prompt_of(adata: ad.AnnData, cell: int, wording: int = 0) -> str:
    (sentence,) = cell_sentences(adata[cell], top_k=N_GENES)
    return TEMPLATES[wording].model_input.format(organism="human", cell_sentence=sentence)


def test_label_probabilities_are_those_of_the_whole_text(model, pbmc, full):
    """Teacher forcing of every label after every wording, one text at a time."""
    labels = ["CD19+ B", "Dendritic", "a type of its own", "CD56+ NK"]
    model.annotate(pbmc, labels, n_prompts=2, **QUIET)
    wanted = []
    for cell in (0, 7):
        each = []
        for wording in range(2):
            prompt = prompt_of(pbmc, cell, wording)
            start, scores = len(full(prompt)[0]), []
            for label in labels:
                tokens, _, logprobs = full(f"{prompt} {label}.")
                ids = [*tokens[start:], model.tokenizer.eos_id]
                scores.append(sum(logprobs[start - 1 + i, token] for i, token in enumerate(ids)))
            each.append(scores)
        wanted.append(logsumexp(log_softmax(each, axis=1), axis=0) - np.log(2))
        assert pbmc.obs["c2s_cell_type_mass"].iloc[cell] == pytest.approx(
            np.exp(logsumexp(each, axis=1)).mean(), rel=1e-3
        )
    found = pbmc.obsm["c2s_cell_type_probabilities"]
    np.testing.assert_allclose(found[[0, 7]], np.exp(wanted), rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert len(np.unique(found.round(5), axis=0)) > 30, "cells do not matter"
    best = found.argmax(axis=1)
    assert pbmc.obs["c2s_cell_type"].tolist() == [labels[i] for i in best]
    np.testing.assert_allclose(np.exp(pbmc.obs["c2s_cell_type_logprob"]), found.max(axis=1), rtol=1e-5)
    assert list(pbmc.uns["c2s"]["annotate"]["labels"]) == labels


def test_labels_come_from_training_by_default(model, pbmc, bundle):
    model.annotate(pbmc, **QUIET)
    labels = Corpus(bundle.corpus).cells("train").fields("cell_type")
    assert set(pbmc.obs["c2s_cell_type"].cat.categories) == set(labels)


def test_free_text(model, pbmc):
    model.annotate(pbmc, free_text=True, key_added="free", **QUIET)
    (text,) = model.complete([prompt_of(pbmc, 3)], 48)
    assert (pbmc.obs["free"].astype(object).fillna("").iloc[3]) == text.strip().split("\n")[0].strip().removesuffix(".")
    assert (pbmc.obs["free_logprob"] < 0).all()


def test_embedding_is_the_mean_over_the_prompt(model, pbmc, full):
    """Not over padding, not over the token that begins every sequence."""
    model.embed(pbmc, **QUIET)
    for cell in (0, 11):
        tokens, hidden, _ = full(prompt_of(pbmc, cell))
        np.testing.assert_allclose(pbmc.obsm["X_c2s"][cell], hidden[1 : len(tokens)].mean(axis=0), atol=2e-6)
    model.embed(pbmc, pooling="last", key_added="last", **QUIET)
    np.testing.assert_allclose(pbmc.obsm["last"][11], hidden[len(tokens) - 1], atol=2e-6)


def test_embedding_depends_on_the_cell_alone(model, pbmc):
    """Neither on order, nor on the batch, nor on how far that is padded."""
    model.embed(pbmc, **QUIET)
    # lengths that differ much, so that batches are padded differently
    mixed = pbmc[[5, 0, 31, 17]].copy()
    mixed.X = mixed.X.toarray() * (np.arange(765) < np.array([765, 300, 765, 100])[:, None])
    model.embed(mixed, **QUIET)
    np.testing.assert_allclose(mixed.obsm["X_c2s"][[0, 2]], pbmc.obsm["X_c2s"][[5, 31]], atol=1e-6)
    alone = mixed[[3]].copy()
    model.embed(alone, **QUIET)
    np.testing.assert_allclose(alone.obsm["X_c2s"][0], mixed.obsm["X_c2s"][3], atol=1e-6)
    assert np.abs(np.diff(pbmc.obsm["X_c2s"], axis=0)).max() > 1e-2


def test_embedding_of_groups(model, pbmc):
    """Rows do not depend on the order of cells; n_cells of the group are shown."""
    found = model.embed_groups(pbmc, "bulk_labels", n_cells=3, n_contexts=2, **QUIET)
    again = model.embed_groups(pbmc[::-1].copy(), "bulk_labels", n_cells=3, n_contexts=2, **QUIET)
    assert found.obs["cells"].tolist() == again.obs["cells"].tolist()
    np.testing.assert_allclose(found.obsm["X_c2s"], again.obsm["X_c2s"], atol=1e-6)
    for cells, label, n in zip(found.obs["cells"], found.obs["bulk_labels"], found.obs["n_cells"]):
        assert len(cells.split(";")) == n <= 3
        assert set(pbmc.obs.loc[cells.split(";"), "bulk_labels"]) == {label}
    told = model.embed_groups(pbmc, "bulk_labels", n_cells=3, n_contexts=2, fields={"tissue": "blood"}, **QUIET)
    assert "X_c2s" in told.obsm


def test_scanpy_goes_on_from_there(model, pbmc, tmp_path):
    model.annotate(pbmc, **QUIET)
    model.embed(pbmc, **QUIET)
    pbmc.write_h5ad(tmp_path / "out.h5ad")
    adata = sc.read_h5ad(tmp_path / "out.h5ad")
    assert json.loads(json.dumps(adata.uns["c2s"]["embed"]["settings"])) == {"model_layer": 4, "pooling": "mean"}
    sc.pp.neighbors(adata, use_rep="X_c2s", n_neighbors=5)
    sc.tl.umap(adata, maxiter=5)
    sc.pl.umap(adata, color=["c2s_cell_type", "c2s_cell_type_logprob"], show=False)


def test_a_copy_leaves_the_original_alone(model, pbmc):
    before = set(pbmc.obs), set(pbmc.uns)
    copy = model.embed(pbmc, copy=True, **QUIET)
    assert "X_c2s" in copy.obsm
    assert not pbmc.obsm
    assert (set(pbmc.obs), set(pbmc.uns)) == before
    with pytest.raises(ValueError, match="a view"):
        model.embed(pbmc[:3], **QUIET)


@pytest.mark.parametrize("command", ["to-hf", "from-hf"])
def test_what_a_model_knows_travels_with_it(model, run, pbmc, tmp_path, command):
    """Through the formats of Hugging Face and of this project, without the run."""
    convert.to_hugging_face(convert.parse(["to-hf", str(run), str(tmp_path / "hf")]))
    folder = tmp_path / "hf"
    if command == "from-hf":
        folder = tmp_path / "ours"
        convert.from_hugging_face(convert.parse(["from-hf", str(tmp_path / "hf"), str(folder)]))
    moved = c2s_jax.load(folder)
    assert moved.card == model.card
    assert moved.context == model.context == 128
    other = pbmc.copy()
    for each, adata in ((model, pbmc), (moved, other)):
        each.annotate(adata, **QUIET)
    np.testing.assert_allclose(
        other.obsm["c2s_cell_type_probabilities"], pbmc.obsm["c2s_cell_type_probabilities"], atol=1e-5
    )


def test_a_checkpoint_that_brings_nothing(run, pbmc, tmp_path):
    """Genes come from the cells, prompts from the files of another package."""
    convert.to_hugging_face(convert.parse(["to-hf", str(run), str(tmp_path / "hf")]))
    (tmp_path / "hf" / "c2s.json").unlink()
    bare = c2s_jax.load(tmp_path / "hf")
    assert bare.card is None
    texts = {"model_input": ["{num_genes} genes of a {organism} cell: {cell_sentence}."], "response": ["{cell_type}."]}
    (tmp_path / "single_cell_cell_type_prediction_prompts.json").write_text(json.dumps(texts))
    options = dict(prompts=str(tmp_path), n_genes=10, **QUIET)
    bare.annotate(pbmc, ["T cell", "B cell"], organism="Homo sapiens", **options)
    assert pbmc.obs["c2s_cell_type"].notna().all()
    with pytest.raises(ValueError, match="give organism="):
        bare.annotate(pbmc, ["T cell"], **options)
    pbmc.obs["organism"] = "Homo sapiens"
    bare.annotate(pbmc, **options)  # no labels known: free text
    with pytest.raises(ValueError, match=r"like=adata"):
        bare.generate("T cell", **QUIET)
    made = bare.generate("T cell", n_genes=5, like=pbmc, **QUIET)
    assert made.var_names.tolist() == pbmc.var_names.str.upper().tolist()


def test_answers_as_terms_of_the_ontology(model, pbmc, tmp_path):
    terms = [("CL:0000001", "cell"), ("CL:0001201", "B cell, CD19-positive"), ("CL:0000451", "dendritic cell")]
    (tmp_path / "cl.obo").write_text("".join(f"\n[Term]\nid: {key}\nname: {name}\n" for key, name in terms))
    model.annotate(pbmc, ["CD19+ B", "Dendritic", "unheard of"], ontology=tmp_path / "cl.obo", **QUIET)
    wanted = {"CD19+ B": "CL:0001201", "Dendritic": "CL:0000451"}
    found = pbmc.obs["c2s_cell_type_ontology_term_id"].astype(object).fillna("none").tolist()
    assert found == [wanted.get(label, "none") for label in pbmc.obs["c2s_cell_type"]]
    assert set(found) - {"none"}
