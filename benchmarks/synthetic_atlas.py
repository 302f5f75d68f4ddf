"""An .h5ad file of made-up counts as sparse as those of an atlas, of any size, written in pieces.

    python benchmarks/synthetic_atlas.py --cells=1000000 --output=atlas.h5ad

Cells have a type, a donor and a depth. Genes have an abundance of their own, changed in some genes of each type. A
cell depends on the seed, its block of rows and the settings alone.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

BLOCK_CELLS = 4096
DEPTHS = np.array([1800, 2400, 3000, 3600, 4200, 5000, 6200, 8000])  # molecules of a cell
MARKERS = 300  # genes whose abundance differs in a cell type


def generator(seed: int, *key: int) -> np.random.Generator:
    """A generator for one purpose or block."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, *[*key, 0, 0][:2]]))


def annotation(cells: int, types: int, donors: int, seed: int) -> pd.DataFrame:
    """Types of uneven frequency, donors in runs as files of several samples have them."""
    rng = generator(seed, 1)
    frequency = rng.dirichlet(np.full(types, 0.7))
    barcodes = rng.integers(0, 4, (cells, 16), dtype=np.uint8)
    letters = np.frombuffer(b"ACGT", "S1")[barcodes].view("S16").ravel().astype(str)
    donor = np.arange(cells) * donors // max(1, cells)
    obs = {
        "cell_type": pd.Categorical.from_codes(
            rng.choice(types, cells, p=frequency), [f"type {i}" for i in range(types)]
        ),
        "donor": pd.Categorical.from_codes(donor, [f"donor {i}" for i in range(donors)]),
        "depth": rng.integers(0, len(DEPTHS), cells),
    }
    return pd.DataFrame(obs, index=pd.Index(letters) + "-" + pd.Index(donor.astype(str)))


def expected_counts(genes: int, types: int, seed: int) -> NDArray[np.float32]:
    """Mean counts of each type and depth, float32 [types, depths, genes]."""
    rng = generator(seed, 2)
    abundance = np.tile(rng.lognormal(0.0, 2.1, genes), (types, 1))
    for row in abundance:
        row[rng.choice(genes, MARKERS, replace=False)] *= rng.lognormal(1.5, 1.0, MARKERS)
    share = abundance / abundance.sum(1, keepdims=True)
    return (DEPTHS[None, :, None] * share[:, None, :]).astype(np.float32)


def blocks(obs: pd.DataFrame, mean: NDArray[np.float32], seed: int) -> Iterator[sparse.csr_matrix]:
    """Counts of consecutive cells, CSR float32."""
    n_depths, genes = mean.shape[1:]
    kinds = obs["cell_type"].cat.codes.to_numpy().astype(int) * n_depths + obs["depth"].to_numpy()
    mean = mean.reshape(-1, genes)
    # a gene is expressed with probability 1 - exp(-mean): compared with 16 random bits, which is quick
    limit = np.round((1 - np.exp(-mean.astype(np.float64))) * 65_535).astype(np.uint16)
    for number, start in enumerate(range(0, len(obs), BLOCK_CELLS)):
        rng = generator(seed, 3, number)
        mine = kinds[start : start + BLOCK_CELLS]
        parts = []
        for some in np.array_split(mine, max(1, len(mine) // 512)):
            expressed = rng.integers(0, 65_535, (len(some), genes), dtype=np.uint16) < limit[some]
            cells, columns = np.nonzero(expressed)
            counts = np.maximum(1, rng.poisson(mean[some[cells], columns])).astype(np.float32)
            indptr = np.concatenate([[0], np.cumsum(expressed.sum(1))])
            parts.append(sparse.csr_matrix((counts, columns, indptr), shape=expressed.shape))
        yield sparse.vstack(parts, format="csr")


def write(path: Path, cells: int, genes: int, types: int, donors: int, seed: int, compression: str | None) -> int:
    """Write the file; return the number of entries."""
    obs = annotation(cells, types, donors, seed)
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(genes)])
    ad.AnnData(obs=obs.drop(columns="depth"), var=var).write_h5ad(path)
    options: dict[str, Any] = {"maxshape": (None,), "chunks": (1 << 18,), "compression": compression}
    with h5py.File(path, "r+") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, genes)})
        data = group.create_dataset("data", (0,), "f4", **options)
        indices = group.create_dataset("indices", (0,), "i4", **options)
        bounds = [np.zeros(1, np.int64)]
        for block in blocks(obs, expected_counts(genes, types, seed), seed):
            start = int(bounds[-1][-1])
            for held, values in ((data, block.data), (indices, block.indices)):
                held.resize((start + block.nnz,))
                held[start:] = values
            bounds.append(start + block.indptr[1:].astype(np.int64))
        group.create_dataset("indptr", data=np.concatenate(bounds))
    return int(bounds[-1][-1])


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--types", type=int, default=30)
    parser.add_argument("--donors", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compression", choices=["gzip", "lzf", "none"], default="gzip")
    given = parser.parse_args()
    compression = None if given.compression == "none" else given.compression
    entries = write(given.output, given.cells, given.genes, given.types, given.donors, given.seed, compression)
    print(f"{given.output}: {entries / max(1, given.cells):.0f} expressed genes a cell")


if __name__ == "__main__":
    main()
