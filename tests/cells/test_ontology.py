"""Names of cell types as terms of the Cell Ontology."""

import gzip
import json
import os
from pathlib import Path

import pytest

from c2s_jax.cells import CellDataError
from c2s_jax.cells.ontology import CellOntology

OBO = """format-version: 1.2

[Term]
id: CL:0000000
name: cell

[Term]
id: CL:0000542
name: lymphocyte
is_a: CL:0000000 ! cell

[Term]
id: CL:0000084
name: T cell
synonym: "T lymphocyte" EXACT []
synonym: "T-cell \\"proper\\"" EXACT [x:y]
synonym: "something near" RELATED []
is_a: CL:0000542 ! lymphocyte
is_a: UBERON:1 ! not a cell

[Term]
id: CL:0000624
name: CD4-positive, alpha-beta T cell
alt_id: CL:0000999
is_a: CL:0000084 ! T cell

[Term]
id: CL:0000815
name: regulatory T cell
is_a: CL:0000624 {source="x"} ! CD4-positive, alpha-beta T cell

[Term]
id: CL:0000623
name: natural killer cell
is_a: CL:0000542 ! lymphocyte

[Term]
id: CL:0001201
name: B cell, CD19-positive
is_a: CL:0000542

[Term]
id: CL:0000001
name: an old name
is_obsolete: true
replaced_by: CL:0000084

[Typedef]
id: part_of
name: part of
"""


@pytest.fixture(scope="module")
def ontology(tmp_path_factory) -> CellOntology:
    path = tmp_path_factory.mktemp("cl") / "cl.obo"
    path.write_text(OBO)
    return CellOntology.load(path)


@pytest.mark.parametrize(
    ("name", "key", "how"),
    [
        ("T cell", "CL:0000084", "label"),
        ("t-cells.", "CL:0000084", "label"),
        ("T lymphocytes", "CL:0000084", "synonym"),
        ('T-cell "proper"', "CL:0000084", "synonym"),
        ("CD4+ αβ T cell", "CL:0000624", "label"),
        ("alpha-beta T cells, CD4-positive", "CL:0000624", "words"),
        ("CD19+ B", "CL:0001201", "words"),
        ("NK cells", "CL:0000623", "label"),
        ("CD56+ NK", "CL:0000623", "broader"),
        ("Treg", "CL:0000815", "words"),
        ("activated regulatory T cell of the gut", "CL:0000815", "broader"),
        ("CL_0000623", "CL:0000623", "id"),
        ("CL:0000001", "CL:0000084", "id"),
        ("CL:0000999", "CL:0000624", "id"),
        ("something near", None, None),
        ("hepatocyte", None, None),
        ("an old name", None, None),
        ("", None, None),
    ],
)
def test_names(ontology, name, key, how):
    found = ontology.match(name)
    assert (found and found.id, found and found.how) == (key, how)


def test_relations(ontology):
    assert ontology.relation("CL:0000084", "CL:0000084") == "same"
    assert ontology.relation("CL:0000084", "CL:0000815") == "ancestor"
    assert ontology.relation("CL:0000815", "CL:0000542") == "descendant"
    assert ontology.relation("CL:0000623", "CL:0000084") == "other"


def test_scores(ontology):
    found = ["T lymphocyte", "T cell", "NK", "Treg", "cell", "blob", "CD8 T cell"]
    wanted = ["T cells", "Treg", "T cell", "T cell", "T cell", "blob", "CD4 T cell"]
    # the last two are narrower than "T cell" each, and not the same for that
    assert ontology.score(found, wanted) == pytest.approx({"exact": 2 / 7, "lineage": 5 / 7, "unmatched": 1 / 7})
    with pytest.raises(ValueError, match="1 answers for 2"):
        ontology.score(["a"], ["a", "b"])


def test_json_says_the_same(ontology, tmp_path):
    """The other format, gzipped; it has no synonyms."""
    content = {
        key: {"label": t.label, "deprecated": False, "ancestors": dict.fromkeys(ontology.ancestors[key], 1)}
        for key, t in ontology.terms.items()
    }
    content["UBERON:1"] = {"label": "not a cell", "deprecated": False, "ancestors": {}}
    (tmp_path / "cl.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    again = CellOntology.load(tmp_path / "cl.json.gz")
    assert again.ancestors == ontology.ancestors
    assert again.match("Treg") == ontology.match("Treg")
    assert again.match("T lymphocyte").how == "broader"


@pytest.mark.parametrize("content", ["", "{}", "[Term]\nno id", "{", "id: CL:0000084", "\x1f\x8b"])
def test_files_that_are_no_ontology(tmp_path, content):
    (tmp_path / "cl.obo").write_text(content, "latin-1")
    with pytest.raises(CellDataError, match=r"cl\.obo"):
        CellOntology.load(tmp_path / "cl.obo")


def test_labels_of_public_data():
    """Most names of blood cells as data sets have them are found in the whole ontology."""
    root = os.environ.get("C2S_DATA")
    files = sorted(Path(root, "ontology_cl").glob("CL-*.json.gz")) if root else []
    if not files:
        pytest.skip("C2S_DATA has no ontology_cl: set it to a folder with the Cell Ontology")
    ontology = CellOntology.load(files[-1])
    wanted = {
        "CD14+ Monocytes": "CD14-positive monocyte",
        "NK cells": "natural killer cell",
        "B cells": "B cell",
        "Megakaryocytes": "megakaryocyte",
        "Dendritic cells": "dendritic cell",
        "CD8 T cells": "T cell",
        "CD19+ B": "B cell, CD19-positive",
    }
    found = {name: getattr(ontology.match(name), "label", None) for name in wanted}
    assert found == wanted
