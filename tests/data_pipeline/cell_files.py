"""The same cells in every format that can be read."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

N_CELLS, N_GENES = 40, 25
COUNTS = np.random.default_rng(0).poisson(0.7, (N_CELLS, N_GENES)).astype(np.float32)
CELLS = [f"cell-{i}" for i in range(N_CELLS)]
GENES = [f"Gene{i}" for i in range(N_GENES)]
POSITIONS = np.random.default_rng(1).random((N_CELLS, 2))
for shared in (COUNTS, POSITIONS):
    shared.flags.writeable = False  # a test that spoils its cells must not spoil those of the next


def adata() -> ad.AnnData:
    """Counts in X, in layers of every layout, and twice as much in raw, which has a gene more."""
    more = np.hstack([2 * COUNTS, np.ones((N_CELLS, 1), np.float32)])
    cells = ad.AnnData(sparse.csr_matrix(COUNTS), obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=GENES))
    raw = ad.AnnData(sparse.csr_matrix(more), obs=cells.obs.copy(), var=pd.DataFrame(index=[*GENES, "Extra"]))
    cells.raw = raw
    cells.layers["columns"] = sparse.csc_matrix(COUNTS)
    cells.layers["dense"] = COUNTS.copy()
    cells.obs["label"] = pd.Categorical([f"type {i % 3}" for i in range(N_CELLS)])
    cells.obs["note"] = [f"ä{i}" for i in range(N_CELLS)]
    cells.obs["years"] = np.where(np.arange(N_CELLS) % 5 == 0, np.nan, 40.0)
    cells.obsm["spatial"] = POSITIONS.copy()
    return cells


def h5ad(folder: Path, **options: Any) -> Path:
    adata().write_h5ad(folder / "cells.h5ad", **options)
    return folder / "cells.h5ad"


def zarr(folder: Path) -> Path:
    adata().write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr"


def tenx_v3(folder: Path, *, kinds: list[str] | None = None, names: list[str] | None = None) -> Path:
    counts = sparse.csr_matrix(COUNTS)
    with h5py.File(folder / "v3.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"], group["shape"] = np.array(CELLS, "S"), [N_GENES, N_CELLS]
        group["indptr"], group["indices"], group["data"] = counts.indptr, counts.indices, counts.data.astype(np.int32)
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011}" for i in range(N_GENES)], "S")
        features["name"] = np.array(names or GENES, "S")
        features["feature_type"] = np.array(kinds or ["Gene Expression"] * N_GENES, "S")
        features["genome"] = np.array(["GRCh38"] * N_GENES, "S")
    return folder / "v3.h5"


def tenx_v2(folder: Path, genomes: tuple[str, ...] = ("hg19",)) -> Path:
    counts = sparse.csr_matrix(COUNTS)
    with h5py.File(folder / "v2.h5", "w") as file:
        for genome in genomes:
            group = file.create_group(genome)
            group["barcodes"], group["shape"] = np.array(CELLS, "S"), [N_GENES, N_CELLS]
            group["indptr"], group["indices"], group["data"] = counts.indptr, counts.indices, counts.data
            group["genes"] = np.array([f"ENSG{i:011}" for i in range(N_GENES)], "S")
            group["gene_names"] = np.array(GENES, "S")
    return folder / "v2.h5"


def mtx(folder: Path, *, compressed: bool = False, prefix: str = "", features: bool = True) -> Path:
    folder = folder / "mtx"
    folder.mkdir()
    scipy.io.mmwrite(folder / f"{prefix}matrix.mtx", sparse.coo_matrix(COUNTS.T.astype(int)))
    (folder / f"{prefix}barcodes.tsv").write_text("".join(f"{cell}\n" for cell in CELLS))
    kind = "\tGene Expression" if features else ""
    table = "".join(f"ENSG{i:011}\t{gene}{kind}\n" for i, gene in enumerate(GENES))
    (folder / f"{prefix}{'features' if features else 'genes'}.tsv").write_text(table)
    for path in [*folder.iterdir()] if compressed else []:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


def soma(folder: Path, **options: Any) -> Path:
    import tiledbsoma.io

    tiledbsoma.io.from_anndata(str(folder / "soma"), adata(), measurement_name="RNA", **options)
    return folder / "soma"


WRITERS: dict[str, Callable[[Path], Path]] = {
    "h5ad": h5ad,
    "zarr": zarr,
    "10x_h5": tenx_v3,
    "10x_mtx": mtx,
    "soma": soma,
}
