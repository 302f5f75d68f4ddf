"""What distances say of real cells that went through their own sentence: the cost of ties, before any model.

    python benchmarks/tie_trap.py [--data=FOLDER, by default C2S_DATA, or only the cells in scanpy's wheel]

Half of each type's cells are compared with the other half as measured ("raw"), and with the other half after
expression → sentence → expression ("sentence"). A generator that gave perfect sentences would score the second. The
cells themselves are also set beside their own sentences ("own"). Medians over random halves. Prints JSON.
"""

import argparse
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scanpy as sc
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from c2s_jax.cells import GeneVocabulary, cell_sentences, fit_rank_expression
from c2s_jax.metrics import mmd, scfid, wasserstein

DISTANCES: dict[str, Callable[[NDArray, NDArray], float]] = {
    "scfid": scfid,
    "mmd_median": lambda a, b: mmd(a, b, gammas="median"),
    "w2": lambda a, b: wasserstein(a, b),
}
FILES = {
    "pbmc3k": ("pbmc3k_full_labelled/pbmc3k_2638_full.h5ad", "classified"),
    "kang": ("kang_muscat_1556/kang_pbmc_ifnb_muscat_1556.h5ad", "cluster_id"),
}


def data_sets(folder: Path | None) -> dict[str, anndata.AnnData]:
    """Log10 expression by data set; ``obs["type"]`` holds the type."""
    bundled = sc.datasets.pbmc68k_reduced()
    cells = bundled.raw.to_adata()
    cells.X = cells.X / np.float32(np.log(10))
    cells.obs["type"] = bundled.obs["bulk_labels"]
    found = {"pbmc68k_reduced": cells}
    for name, (file, column) in FILES.items():
        if folder is None or not (folder / file).exists():
            continue
        adata = anndata.read_h5ad(folder / file)
        adata.obs["type"] = adata.obs[column].astype(str)
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata, base=10)
        found[name] = adata
    return found


def through_sentences(adata: anndata.AnnData) -> tuple[NDArray, float]:
    """Expression read off each cell's own sentence, and R² of the line."""
    genes = GeneVocabulary([str(x).upper() for x in adata.var_names])
    line = fit_rank_expression(adata)
    lists = [genes.ids(s.split()) for s in cell_sentences(adata)]
    return line.reconstruct(lists, genes).toarray(), line.r2


def tied(values: NDArray) -> float:
    """Mean share of a cell's expressed genes whose value another of its genes has, too."""
    shares = []
    for cell in values:
        _, counts = np.unique(cell[cell > 0], return_counts=True)
        shares.append(counts[counts > 1].sum() / max(counts.sum(), 1))
    return float(np.mean(shares))


def measure(adata: anndata.AnnData, halves: int, components: int) -> dict[str, Any]:
    real = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    again, r2 = through_sentences(adata)
    types = adata.obs["type"].astype(str).to_numpy()
    common = [t for t in np.unique(types) if (types == t).sum() >= 60]
    pca = PCA(components, random_state=0).fit(real)
    measured, reconstructed = pca.transform(real), pca.transform(again)
    out: dict[str, Any] = {"cells": len(real), "genes": real.shape[1], "types": len(common), "r2": r2}
    out |= {"tied_genes": tied(real), "tied_genes_through_sentences": tied(again)}
    for name, distance in DISTANCES.items():
        rows: dict[str, list[float]] = {"raw": [], "sentence": [], "own": []}
        for seed in range(halves):
            rng = np.random.default_rng(seed)
            for t in common:
                left, right = np.array_split(rng.permutation(np.flatnonzero(types == t)), 2)
                rows["raw"].append(distance(measured[left], measured[right]))
                rows["sentence"].append(distance(measured[left], reconstructed[right]))
                rows["own"].append(distance(measured[left], reconstructed[left]))
        out[name] = {key: float(np.median(np.reshape(v, (halves, -1)).mean(axis=1))) for key, v in rows.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("C2S_DATA")
    parser.add_argument("--data", type=Path, default=Path(default) if default else None)
    parser.add_argument("--halves", type=int, default=3)
    parser.add_argument("--components", type=int, default=32)
    arguments = parser.parse_args()
    found = {
        name: measure(adata, arguments.halves, arguments.components)
        for name, adata in data_sets(arguments.data).items()
    }
    versions = {n: version(n) for n in ("jax", "numpy", "scanpy", "scikit-learn", "POT")}
    print(json.dumps({"benchmark": "tie_trap", "data_sets": found, "versions": versions}, indent=2))


if __name__ == "__main__":
    main()
