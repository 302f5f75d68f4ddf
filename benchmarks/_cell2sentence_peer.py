"""cell2sentence's side of ``corpus_speed``: ``python -m benchmarks._cell2sentence_peer MATRIX.npz``."""

import hashlib
import sys
import time
from importlib.metadata import version
from typing import Any

import anndata as ad
import cell2sentence.utils as reference
from scipy import sparse

from benchmarks._peer import serve

adata = ad.AnnData(sparse.load_npz(sys.argv[1]))
adata.var_names = [f"GENE{i}" for i in range(adata.n_vars)]
vocabulary = reference.generate_vocabulary(adata)


def sentences() -> dict[str, Any]:
    """Make the sentences of all cells; processor seconds and what was made."""
    began = time.process_time()
    made = reference.generate_sentences(adata, vocabulary)
    seconds = time.process_time() - began
    return {"seconds": seconds, "sha256": hashlib.sha256("\n".join(made).encode()).hexdigest()}


if __name__ == "__main__":
    serve(sentences=sentences, about=lambda: {"version": version("cell2sentence")})
