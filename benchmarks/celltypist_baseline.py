"""CellTypist (Domínguez Conde et al. 2022), trained on a corpus' training cells and asked for its test cells.

    pip install celltypist
    python -m benchmarks.celltypist_baseline --corpus=DIR [--split=test] [--max_cells=2000]

Both see what a corpus holds, expression normalised to 10,000 a cell, ln(1 + x), as CellTypist wants it. Prints JSON.
"""

import argparse
import json
import time
from importlib.metadata import version

import anndata as ad
import celltypist
import numpy as np
from scipy import sparse

from c2s_jax import metrics
from c2s_jax.data import Corpus
from c2s_jax.evaluation.context import dense_expression

TOTAL = 10_000.0


def cells_of(corpus: Corpus, split: str, most: int | None) -> ad.AnnData:
    """Labelled cells of a split, the first `most` of them, as CellTypist reads them."""
    cells = corpus.cells(split)
    rows = np.flatnonzero(cells.fields("cell_type") != "")[:most]
    linear = 10.0 ** dense_expression(cells, rows, len(corpus.genes)) - 1
    linear *= TOTAL / linear.sum(axis=1, keepdims=True)
    out = ad.AnnData(sparse.csr_matrix(np.log1p(linear, dtype=np.float32)))
    out.var_names = list(corpus.genes.names)
    out.obs["cell_type"] = cells.fields("cell_type")[rows]
    return out


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--max_cells", type=int, default=2_000)
    given = parser.parse_args()
    corpus = Corpus(given.corpus)
    train, test = cells_of(corpus, "train", None), cells_of(corpus, given.split, given.max_cells)
    began = time.monotonic()
    model = celltypist.train(train, labels="cell_type", n_jobs=1, check_expression=False)
    predicted = celltypist.annotate(test, model=model).predicted_labels["predicted_labels"].to_numpy(str)
    true = test.obs["cell_type"].to_numpy(str)
    found = metrics.label_scores(true, predicted)
    print(json.dumps(found | {"n": len(true), "seconds": round(time.monotonic() - began, 1)}))
    print(json.dumps({name: version(name) for name in ("celltypist", "scikit-learn", "anndata")}))


if __name__ == "__main__":
    main()
