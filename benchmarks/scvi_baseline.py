"""scVI (Lopez et al. 2018), trained on a corpus' training cells: its embedding of held-out cells.

    pip install scvi-tools
    python -m benchmarks.scvi_baseline --corpus=DIR [--split=test] [--max_cells=600]

scVI models counts. A corpus holds log10(1 + normalised count): of a cell whose least count is one, dividing by the
least value gives the counts back, and the script stops where that gives no whole numbers. Batches are not told, since
those of a split by donor are new to the model. Measured as the suite "embedding" measures (docs/metrics.md). Prints
JSON.
"""

import argparse
import json
import time
from importlib.metadata import version

import anndata as ad
import numpy as np
import scvi
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.data import CellSource, Corpus
from c2s_jax.evaluation.context import dense_expression, some_of
from c2s_jax.evaluation.embedding_suite import batches_of, measured

FRACTION = 0.1  # how far from a whole number a count may come out, of stored precision


def counts(log10: NDArray[np.float32]) -> NDArray[np.float64]:
    """Counts [C, G] of log10(1 + normalised count); of cells without a count of one, these over their least."""
    linear = 10.0 ** log10.astype(np.float64) - 1
    least = np.where(linear > 0, linear, np.inf).min(axis=1, keepdims=True)
    scaled = linear / least
    whole = np.rint(scaled)
    off = np.abs(scaled - whole) / np.maximum(whole, 1)
    if (off > FRACTION).any():
        raise SystemExit(f"error: cell {np.argwhere(off > FRACTION)[0, 0]} holds no counts")
    return whole


def cells_of(cells: CellSource, rows: NDArray[np.int64], genes: tuple[str, ...]) -> ad.AnnData:
    """Some cells as scVI reads them."""
    out = ad.AnnData(sparse.csr_matrix(counts(dense_expression(cells, rows, len(genes))), dtype=np.float32))
    out.var_names = list(genes)
    return out


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--max_cells", type=int, default=600)
    parser.add_argument("--k", type=int, default=5)
    given = parser.parse_args()
    corpus = Corpus(given.corpus)
    parts = [corpus.cells(name) for name in ("train", given.split)]
    rows = [some_of(np.flatnonzero(cells.fields("cell_type") != ""), given.max_cells) for cells in parts]
    labels = [cells.fields("cell_type")[r] for cells, r in zip(parts, rows)]
    train, held_out = (cells_of(cells, r, corpus.genes.names) for cells, r in zip(parts, rows))
    began = time.monotonic()
    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(train)
    model = scvi.model.SCVI(train)
    model.train(accelerator="cpu", enable_progress_bar=False)
    latent = [model.get_latent_representation(x) for x in (train, held_out)]
    found = measured(latent, labels, batches_of(parts[1], rows[1]), given.k)
    print(json.dumps(found | {"n": len(rows[1]), "k": given.k, "seconds": round(time.monotonic() - began, 1)}))
    print(json.dumps({name: version(name) for name in ("scvi-tools", "torch")}))


if __name__ == "__main__":
    main()
