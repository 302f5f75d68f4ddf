"""What biologists hand over, and what they are told."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import c2s_jax
from c2s_jax.cells import CellDataError
from c2s_jax.inference.organisms import _of_cells
from c2s_jax.inference.prompting import Column

QUIET = dict(progress=False)


def test_cells_without_a_gene_of_the_model(model, pbmc):
    """They get no result, the others theirs, and it is said."""
    whole = pbmc.copy()
    model.embed(whole, **QUIET)
    pbmc.X = pbmc.X.toarray()
    pbmc.X[[0, 4]] = 0
    with pytest.warns(UserWarning, match=f"2 cells express no gene of the model .*{pbmc.obs_names[4]}"):
        model.annotate(pbmc, **QUIET)
    with pytest.warns(UserWarning, match="2 cells"):
        model.embed(pbmc, **QUIET)
    empty = np.isin(np.arange(pbmc.n_obs), [0, 4])
    for values in (pbmc.obs["c2s_cell_type"].isna(), np.isnan(pbmc.obsm["X_c2s"]).all(axis=1)):
        np.testing.assert_array_equal(values, empty)
    np.testing.assert_allclose(pbmc.obsm["X_c2s"][~empty], whole.obsm["X_c2s"][~empty], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.var_names.map(lambda g: f"ENSMUSG{hash(g) % 10**11:011d}"), "Ensembl"),
        (lambda a: [f"gene-{i}" for i in range(a.n_vars)], "none of the 765 genes .* another organism"),
    ],
)
def test_genes_of_another_kind(model, pbmc, change, message):
    pbmc.var_names = change(pbmc)
    with pytest.raises(CellDataError, match=message):
        model.annotate(pbmc, **QUIET)


def test_scaled_values(model):
    """As scanpy's own example has them; what to use instead is said, and works."""
    adata = sc.datasets.pbmc68k_reduced()[:3].copy()
    with pytest.raises(CellDataError, match=r"negative values .*usable instead: adata\.raw \(use_raw=True\)$"):
        model.annotate(adata, **QUIET)
    model.annotate(adata, use_raw=True, **QUIET)
    adata.layers["logged"], adata.layers["scaled"] = adata.raw.X, adata.X
    with pytest.raises(CellDataError, match=r"\(use_raw=True\) or adata.* \(expression_layer='logged'\)$"):
        model.annotate(adata, expression_layer="scaled", **QUIET)


def test_ranks_do_not_depend_on_the_scale(model, pbmc):
    counts = pbmc[:6].copy()
    counts.X = sparse.csc_matrix(np.expm1(counts.X.toarray()) * 7)
    for adata in (counts, mouse := pbmc[:6].copy()):
        adata.var_names = [name.capitalize() for name in adata.var_names]
        model.embed(adata, **QUIET)
    np.testing.assert_allclose(counts.obsm["X_c2s"], mouse.obsm["X_c2s"], atol=1e-6)


def test_genes_named_twice(model, pbmc):
    """The one expressed most counts: adding a weaker namesake changes nothing."""
    model.embed(pbmc, **QUIET)
    weaker = pbmc[:, :50].copy()
    weaker.X = weaker.X * 0.5
    both = ad.concat([pbmc, weaker], axis=1, merge="same")
    model.embed(both, **QUIET)
    np.testing.assert_allclose(both.obsm["X_c2s"], pbmc.obsm["X_c2s"], atol=1e-6)


def test_organisms(model, pbmc):
    model.annotate(pbmc, organism="Homo sapiens", **QUIET)
    with pytest.raises(ValueError, match="organism 'Mus musculus' is unknown to this model, .* human"):
        model.annotate(pbmc, organism="Mus musculus", **QUIET)
    pbmc.obs["organism"] = "zebrafish"
    with pytest.raises(ValueError, match="organism 'zebrafish' is unknown"):
        model.embed(pbmc, **QUIET)
    with pytest.raises(ValueError, match="organism 'axolotl' is unknown"):
        model.generate("Dendritic", organism="axolotl", **QUIET)


def test_cells_without_an_organism(model, pbmc):
    """They are of the one that the others name, which is checked; of which of several cannot be known."""
    pbmc.obs["organism"] = ["Homo sapiens"] * (pbmc.n_obs - 1) + [" "]
    model.embed(pbmc, **QUIET)
    assert any("1 cells without a value of obs['organism']" in line for line in pbmc.uns["c2s"]["embed"]["report"])
    pbmc.obs["organism"] = ["Mus musculus"] * (pbmc.n_obs - 1) + [None]
    with pytest.raises(ValueError, match="organism 'Mus musculus' is unknown"):
        model.embed(pbmc, **QUIET)
    column = pd.Series(["Homo sapiens", "Mus musculus", None])
    with pytest.raises(CellDataError, match="no value for 1 cells and names homo, mus"):
        _of_cells(Column.of(column.replace({"Homo sapiens": "homo", "Mus musculus": "mus"})), (), [])


def test_prompts_longer_than_the_context(model, pbmc):
    """The least expressed genes go, and it is said how many prompts and genes that touches."""
    with pytest.warns(UserWarning, match=r"\d+ of 39 prompts were cut to the 128 tokens .* at least \d+ remain"):
        model.embed(pbmc, n_genes=200, **QUIET)
    assert any("were cut" in line for line in pbmc.uns["c2s"]["embed"]["report"])


@pytest.mark.filterwarnings("ignore:this model was not trained")
def test_a_question_of_ten_million_characters(model, pbmc, monkeypatch):
    def refuse(texts):
        raise AssertionError("it need not be tokenised")

    with monkeypatch.context() as patch:
        patch.setattr(model.tokenizer, "encode_batch", refuse)
        with pytest.raises(ValueError, match="question has 9,999,999 characters; the model reads 120 tokens"):
            model.ask(pbmc, "why? " * 2_000_000, max_new_tokens=8)
    with pytest.raises(ValueError, match="shorten the text"):
        model.ask(pbmc, "why? " * 150, max_new_tokens=8)
    with pytest.raises(ValueError, match="question is empty"):
        model.ask(pbmc, " \n")
    with pytest.raises(ValueError, match="leaves no room for a prompt"):
        model.ask(pbmc, "Why?", max_new_tokens=1000)


def test_labels_and_fields(model, pbmc):
    with pytest.raises(TypeError, match="a list of cell types"):
        model.annotate(pbmc, "B cell")
    with pytest.raises(ValueError, match="none may be empty"):
        model.annotate(pbmc, ["B cell", " "])
    with pytest.raises(CellDataError, match="no column 'tisue'"):
        model.annotate(pbmc, metadata={"tissue": "tisue"})
    for given in ({"metadata": {"tisue": "louvain"}}, {"fields": {"tisue": "lung"}}):
        with pytest.raises(ValueError, match="'tisue' is no field of prompts .nearest: 'tissue'"):
            model.annotate(pbmc, **given)
    with pytest.raises(ValueError, match="'num_genes' is no field"):
        model.annotate(pbmc, fields={"num_genes": "7"})
    with pytest.raises(ValueError, match="'tisue' is no field"):
        model.generate("Dendritic", fields={"tisue": "lung"})
    with pytest.raises(ValueError, match="layer=9"):
        model.embed(pbmc, layer=9)


def test_numbers_of_wordings_and_genes(model, pbmc):
    """None is refused; of more wordings than there are, those there are count."""
    for options in ({"n_prompts": 0}, {"n_prompts": -1}, {"n_genes": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            model.annotate(pbmc, **options, **QUIET)
    with pytest.raises(ValueError, match="n_genes=0 must be from 1"):
        model.generate("Dendritic", n_genes=0, **QUIET)
    few = pbmc[:2].copy()
    model.annotate(few, ["CD19+ B", "Dendritic"], n_prompts=1000, **QUIET)
    told = few.uns["c2s"]["annotate"]
    assert told["settings"]["n_prompts"] == len(told["prompts"]) < 1000
    assert any("all there are, and not 1000" in line for line in told["report"])


def test_groups_without_a_value(model, pbmc):
    pbmc.obs["group"] = np.nan
    with pytest.raises(CellDataError, match=r"adata\.obs\['group'\] has no value for any cell"):
        model.embed_groups(pbmc, "group", **QUIET)


def test_folders_that_hold_no_model(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder nor"):
        c2s_jax.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.model"):
        c2s_jax.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(ValueError, match="no whole checkpoint"):
        c2s_jax.load(tmp_path)


def test_a_damaged_card(tmp_path):
    from c2s_jax.inference.card import read_card

    for text in ("{", "[]", json.dumps({"version": 99}), json.dumps({"version": 1})):
        (tmp_path / "c2s.json").write_text(text)
        with pytest.raises(ValueError, match=r"c2s\.json cannot be used"):
            read_card(tmp_path)
