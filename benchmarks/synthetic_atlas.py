"""An .h5ad file of made-up counts as sparse as those of an atlas, of any size, written in pieces.

    python benchmarks/synthetic_atlas.py --cells=1000000 --output=atlas.h5ad

Cells have a type, a donor and a depth. Genes have an abundance of their own, changed in some genes of each type. A
cell depends on the seed, its block of rows and the settings alone. ``--distinct=40000`` makes the counts of so many
cells and repeats them, which takes a fraction of the time; barcodes and donors do not repeat.
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
    donor = np.arange(cells) * donors // max(1, cells)
    obs = {
        "cell_type": pd.Categorical.from_codes(
            rng.choice(types, cells, p=frequency), [f"type {i}" for i in range(types)]
        ),
        "donor": pd.Categorical.from_codes(donor, [f"donor {i}" for i in range(donors)]),
        "depth": rng.integers(0, len(DEPTHS), cells),
    }
    return pd.DataFrame(obs, index=barcodes(donor, generator(seed, 4)))


def barcodes(donor: NDArray[np.int64], rng: np.random.Generator) -> pd.Index:
    """A barcode for each cell, unique within its donor: of a million random ones, a few are drawn twice."""
    ends = pd.Index(donor.astype(str))
    names = pd.Index(letters(len(donor), rng)) + "-" + ends
    while (again := names.duplicated()).any():
        values = names.to_numpy(dtype=object)
        values[again] = pd.Index(letters(int(again.sum()), rng)) + "-" + ends[again]
        names = pd.Index(values)
    return names


def letters(n: int, rng: np.random.Generator) -> NDArray[np.str_]:
    """Random words of 16 nucleotides."""
    drawn = rng.integers(0, 4, (n, 16), dtype=np.uint8)
    return np.frombuffer(b"ACGT", "S1")[drawn].view("S16").ravel().astype(str)


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


def write(
    path: Path,
    cells: int,
    genes: int,
    types: int,
    donors: int,
    seed: int,
    compression: str | None,
    distinct: int | None = None,
) -> int:
    """Write the file; return the number of entries."""
    obs, distinct = annotation(cells, types, donors, seed), min(distinct or cells, cells)
    repeated = obs[["cell_type", "depth"]].iloc[np.arange(cells) % distinct]
    obs[["cell_type", "depth"]] = repeated.set_axis(obs.index)
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(genes)])
    ad.AnnData(obs=obs.drop(columns="depth"), var=var).write_h5ad(path)
    options: dict[str, Any] = {"maxshape": (None,), "chunks": (1 << 18,), "compression": compression}
    with h5py.File(path, "r+") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, genes)})
        data = group.create_dataset("data", (0,), "f4", **options)
        indices = group.create_dataset("indices", (0,), "i4", **options)
        bounds = [np.zeros(1, np.int64)]
        for block in blocks(obs[:distinct], expected_counts(genes, types, seed), seed):
            bounds.append(append(data, indices, block.data, block.indices) + block.indptr[1:].astype(np.int64))
        indptr = np.concatenate(bounds)
        for start in range(distinct, cells, BLOCK_CELLS):
            for first, last in pieces(start, min(cells, start + BLOCK_CELLS), distinct):
                part = slice(indptr[first], indptr[last])
                bounds.append(
                    append(data, indices, data[part], indices[part]) + indptr[first + 1 : last + 1] - part.start
                )
        group.create_dataset("indptr", data=np.concatenate(bounds))
    return int(bounds[-1][-1])


def append(data: h5py.Dataset, indices: h5py.Dataset, values: NDArray, columns: NDArray) -> int:
    """Add entries at the end; return how many there were before."""
    start = len(data)
    for held, new in ((data, values), (indices, columns)):
        held.resize((start + len(new),))
        held[start:] = new
    return start


def pieces(start: int, stop: int, distinct: int) -> Iterator[tuple[int, int]]:
    """The cells whose counts the cells ``start:stop`` repeat, as ranges."""
    while start < stop:
        first = start % distinct
        last = min(distinct, first + stop - start)
        yield first, last
        start += last - first


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
    parser.add_argument("--distinct", type=int, help="cells with counts of their own; default: all")
    given = parser.parse_args()
    compression = None if given.compression == "none" else given.compression
    entries = write(
        given.output, given.cells, given.genes, given.types, given.donors, given.seed, compression, given.distinct
    )
    print(f"{given.output}: {entries / max(1, given.cells):.0f} expressed genes a cell")


if __name__ == "__main__":
    main()
