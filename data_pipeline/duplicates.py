"""Cells that are in the input more than once: the same barcode and the same counts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells.ranking import hash_strings, mix
from c2s_jax.jit import compiled

# Two cells rarely agree in this many values by chance; with fewer, only equal ids are believed.
_EVIDENCE_GENES = 25
_BARCODE = re.compile(r"[ACGT]{10,}")
_NUMBERING = re.compile(r"(-\d+)+$")
_WORD = re.compile(r"[^\W_]+")


def bare_barcode(cell_id: str) -> str:
    """The part of a cell's id that says which cell of its sample it is.

    Samples are told apart by a prefix ("lung_ACGT…"), their number by a suffix ("-1", "-1-0"): both are left out.
    An id without a barcode of nucleotides keeps its last word.
    """
    barcodes = _BARCODE.findall(cell_id)
    if barcodes:
        return "".join(barcodes)
    words = _WORD.findall(_NUMBERING.sub("", cell_id))
    return words[-1] if words else cell_id


def gene_hashes(symbols: Sequence[str]) -> NDArray[np.uint64]:
    """Hash of each gene's upper-cased symbol, for `copy_keys`."""
    return hash_strings([symbol.upper() for symbol in symbols], domain="copy gene")


def copy_keys(cell_ids: Sequence[str], matrix: sparse.csr_matrix, genes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A key for each cell that copies of it have too.

    The order of genes, and genes the cell does not express, make no difference.

    Parameters
    ----------
    cell_ids : sequence of str [C]
    matrix : CSR [C, G]
        Values as read.
    genes : uint64 [G]
        See `gene_hashes`.

    Returns
    -------
    uint64 [C]
    """
    lengths = np.diff(matrix.indptr)
    enough = (lengths >= _EVIDENCE_GENES).tolist()
    names = [bare_barcode(cell_id) if known else cell_id for cell_id, known in zip(cell_ids, enough, strict=True)]
    return mix(hash_strings(names, domain="copy cell") ^ _content(matrix, genes))


def _content(matrix: sparse.csr_matrix, genes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sum over a cell's entries of a hash of gene and value: of the set of entries, whatever their order."""
    bits = matrix.data.astype(np.float64).view(np.uint64)
    sums = np.zeros(matrix.shape[0], np.uint64)
    _sum_hashes(matrix.indptr, matrix.indices, bits, genes, sums)
    return sums


@compiled
def _sum_hashes(
    indptr: NDArray, indices: NDArray, bits: NDArray[np.uint64], genes: NDArray[np.uint64], sums: NDArray[np.uint64]
) -> None:
    for cell in range(len(sums)):
        for entry in range(indptr[cell], indptr[cell + 1]):
            # SplitMix64, as `mix` does it; the low half of a small whole number's bits is zero
            x = genes[indices[entry]] ^ (bits[entry] >> np.uint64(32)) ^ (bits[entry] << np.uint64(32))
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            sums[cell] += x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Copies:
    """Which cells of a corpus are copies of one another.

    Attributes
    ----------
    classes : list of int64 [C]
        For each data set, the class of each cell: cells of one class are copies; −1 for cells without a copy.
    keys : uint64 [K]
        Key of each class, rising.
    """

    classes: list[NDArray[np.int64]]
    keys: NDArray[np.uint64]

    def repeats(self) -> list[NDArray[np.bool_]]:
        """For each data set, which cells have a copy before them, in their data set or an earlier one."""
        seen = np.zeros(len(self.keys), bool)
        found = []
        for classes in self.classes:
            again = np.zeros(len(classes), bool)
            rows = np.flatnonzero(classes >= 0)
            first = np.zeros(len(rows), bool)
            first[np.unique(classes[rows], return_index=True)[1]] = True
            again[rows] = seen[classes[rows]] | ~first
            seen[classes[rows]] = True
            found.append(again)
        return found


def find_copies(keys: Sequence[NDArray[np.uint64]], kept: Sequence[NDArray[np.bool_]]) -> Copies:
    """Find the cells that share a key.

    Parameters
    ----------
    keys : sequence of uint64 [C]
        Of each data set, see `copy_keys`.
    kept : sequence of bool [C]
        Cells that count.
    """
    everything = np.sort(np.concatenate([np.zeros(0, np.uint64), *(k[there] for k, there in zip(keys, kept))]))
    shared = np.unique(everything[1:][everything[1:] == everything[:-1]])
    return Copies([_classes(k, there, shared) for k, there in zip(keys, kept, strict=True)], shared)


def _classes(keys: NDArray[np.uint64], kept: NDArray[np.bool_], shared: NDArray[np.uint64]) -> NDArray[np.int64]:
    if not len(shared):
        return np.full(len(keys), -1)
    place = np.minimum(np.searchsorted(shared, keys), len(shared) - 1)
    return np.where(kept & (shared[place] == keys), place, -1)


class _Described(Protocol):
    """What `treat_copies` asks of a data set."""

    kept: NDArray[np.bool_]
    report: list[str]

    def cell_name(self, row: int) -> str: ...


def treat_copies(datasets: Sequence[_Described], copies: Copies, how: str) -> list[str]:
    """Report copies of cells, leave them out (all but the first), or stop.

    Parameters
    ----------
    datasets : sequence of data sets
        Their `kept` and `report` change.
    copies : Copies
    how : "report", "drop" or "error"

    Returns
    -------
    list of str
        What there is to say about all data sets.

    Raises
    ------
    ValueError
        If there are copies and `how` is "error"; the message names two cells.
    """
    repeats = copies.repeats()
    total = sum(int(again.sum()) for again in repeats)
    if not total:
        return []
    text = "have the barcode and the counts of a cell before them"
    if how == "error":
        raise ValueError(
            f"{total} cells {text}, for instance {_example(datasets, copies, repeats)}; remove the copies, or use "
            "duplicates_cells='drop' or 'report' (they share a split then)"
        )
    done = "are left out" if how == "drop" else "stay, in the same split"
    for dataset, again in zip(datasets, repeats, strict=True):
        if again.any():
            dataset.report.append(f"{int(again.sum())} cells {text} and {done}")
        if how == "drop":
            dataset.kept &= ~again
    return [f"{total} cells {text}, in their data set or an earlier one, and {done}"]


def _example(datasets: Sequence[_Described], copies: Copies, repeats: Sequence[NDArray[np.bool_]]) -> str:
    number = next(i for i, again in enumerate(repeats) if again.any())
    row = int(np.argmax(repeats[number]))
    same = [np.flatnonzero(classes == copies.classes[number][row]) for classes in copies.classes]
    first = next(i for i, rows in enumerate(same) if len(rows))
    return f"{datasets[number].cell_name(row)} and {datasets[first].cell_name(int(same[first][0]))}"
