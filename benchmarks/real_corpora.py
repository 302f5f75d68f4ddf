"""Build a corpus of each public data set and tell its size, its rank→expression fit, its tokens and the time taken.

    C2S_DATA=FOLDER python -m benchmarks.real_corpora [--manifest=benchmarks/real_data.yaml] [--together=DIR]

Data sets whose files are not in the folder, and those that cannot be a corpus, are named with the reason. Prints JSON;
a table goes to standard error. Tokens are those of all cell sentences with Gemma-2's tokenizer, if the folder has it.
With ``--together``, one corpus of all of them instead, which stays: with the folder's gene sets and CellPhoneDB's
interactions.
"""

import argparse
import glob
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from benchmarks import _public_tables
from c2s_jax.cells.errors import CellDataError
from c2s_jax.data import Corpus
from c2s_jax.text import GeneTokenTable, load_tokenizer
from data_pipeline.build import build_corpus
from data_pipeline.manifest import load_manifest
from data_pipeline.sources import Source

TOKENIZER = "tokenizer_gemma2/tokenizer.model"
INTERACTIONS = "lr_cellphonedb/interaction_input.csv"


def one_by_one(manifest: Path, data: Path, prepared: Path) -> list[dict[str, Any]]:
    """The manifest's entries as manifests of their own, with whole paths; text tables are in `prepared`."""
    content = yaml.load(manifest.read_text(), yaml.BaseLoader)
    defaults = content.get("defaults", {})
    for settings in (defaults, *content["datasets"]):
        for key in ("path", "aliases"):
            if settings.get(key):
                folder, name = data, settings[key]
                if name.startswith("prepared/"):
                    folder, name = prepared, name.removeprefix("prepared/")
                settings[key] = str(folder / name)
    shared = {key: value for key, value in content.items() if key not in ("defaults", "datasets", "gene_sets")}
    return [{"defaults": defaults, "datasets": [entry], **shared} for entry in content["datasets"]]


def together(manifests: list[dict[str, Any]], data: Path, output: Path, folder: Path) -> None:
    """Build one corpus of the data sets that are there and can be part of one."""
    usable = []
    for manifest in manifests:
        path = folder / "one.yaml"
        path.write_text(yaml.safe_dump(manifest))
        if glob.glob(manifest["datasets"][0]["path"]) and not any(map(is_signed, load_manifest(path).sources)):
            usable += manifest["datasets"]
    interactions = [str(data / INTERACTIONS)] if (data / INTERACTIONS).is_file() else []
    knowledge = {"gene_sets": sorted(map(str, (data / "genesets_msigdb").glob("*.gmt"))), "interactions": interactions}
    path = folder / "all.yaml"
    path.write_text(yaml.safe_dump(manifests[0] | {"datasets": usable} | knowledge))
    loaded = load_manifest(path)
    print(Corpus(build_corpus(loaded.sources, output, **loaded.options)), file=sys.stderr)


def is_signed(source: Source) -> bool:
    """Whether the first cells of a data set have values below 0."""
    with source.open() as table:
        return bool((table.rows(0, 1).data < 0).any())


def measure(manifest: dict[str, Any], tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Build one corpus; its row of the table."""
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    began = time.monotonic()
    loaded = load_manifest(path)
    corpus = Corpus(build_corpus(loaded.sources, folder / "corpus", **loaded.options))
    seconds = time.monotonic() - began
    lines = corpus.datasets
    row: dict[str, Any] = {
        "name": ", ".join(line["name"] for line in lines),
        "cells": sum(line["counts"]["cells"] for line in lines),
        "genes": len(corpus.genes.names),
        "r2": [round(line["rank_expression"]["r2"], 3) for line in lines],
        "r2_all": [round(line["rank_expression"]["r2_all"], 3) for line in lines],
        "seconds": round(seconds, 2),
    }
    if tokenizer is not None:
        lengths = GeneTokenTable.build(tokenizer, corpus.genes.names).lengths
        parts = (corpus.cells(split) for split in corpus.splits)
        row["tokens"] = int(sum(lengths[cells.take(range(len(cells))).genes].sum() for cells in parts if len(cells)))
    return row


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path(__file__).with_name("real_data.yaml"))
    parser.add_argument("--together", type=Path, help="where to build one corpus of all data sets")
    given = parser.parse_args()
    data = Path(os.environ.get("C2S_DATA", ""))
    if not os.environ.get("C2S_DATA") or not data.is_dir():
        sys.exit("error: name the folder of data sets in C2S_DATA")
    tokenizer = load_tokenizer(data / TOKENIZER) if (data / TOKENIZER).is_file() else None
    rows, absent = [], {}
    with tempfile.TemporaryDirectory() as prepared:
        _public_tables.prepare(data, Path(prepared))
        manifests = one_by_one(given.manifest, data, Path(prepared))
        if given.together is not None:
            together(manifests, data, given.together, Path(prepared))
            return
        for manifest in manifests:
            path = manifest["datasets"][0]["path"]
            if not glob.glob(path):
                absent[Path(path).name] = "is not there"
                continue
            try:
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(manifest, tokenizer, Path(folder)))
                print(rows[-1], file=sys.stderr, flush=True)
            except CellDataError as error:
                absent[Path(path).name] = str(error)
    versions = {name: version(name) for name in ("c2s_jax", "anndata", "numpy", "numba")}
    print(json.dumps({"rows": rows, "absent": absent, "versions": versions, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
