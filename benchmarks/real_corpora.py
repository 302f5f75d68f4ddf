"""Build a corpus of each public data set and tell its size, its rank→expression fit, its tokens and the time taken.

    C2S_DATA=FOLDER python -m benchmarks.real_corpora [--manifest=benchmarks/real_data.yaml]

Data sets whose files are not in the folder, and those that cannot be a corpus, are named with the reason. Prints JSON;
a table goes to standard error. Tokens are those of all cell sentences with Gemma-2's tokenizer, if the folder has it.
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

TOKENIZER = "tokenizer_gemma2/tokenizer.model"


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
    given = parser.parse_args()
    data = Path(os.environ.get("C2S_DATA", ""))
    if not os.environ.get("C2S_DATA") or not data.is_dir():
        sys.exit("error: name the folder of data sets in C2S_DATA")
    tokenizer = load_tokenizer(data / TOKENIZER) if (data / TOKENIZER).is_file() else None
    rows, absent = [], {}
    with tempfile.TemporaryDirectory() as prepared:
        _public_tables.prepare(data, Path(prepared))
        for manifest in one_by_one(given.manifest, data, Path(prepared)):
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
