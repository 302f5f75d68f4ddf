"""Genes of each cell by falling expression, with ties broken reproducibly.

Most of a cell is ties (counts 1, 2, 3, …), so how they are broken decides most of a cell sentence. Here a tie
is broken by a keyed hash of (cell, gene): the result depends neither on the order of cells or genes in the
matrix nor on which other cells are in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import numpy as np
from scipy import sparse

from .errors import CellDataError

Ties = Literal["hash", "cell2sentence"]

# cell2sentence.utils.generate_sentences seeds numpy's global generator with this
_CELL2SENTENCE_SEED = 42


@dataclass(frozen=True)
class Ranked:
    """Expressed genes of C cells by falling value, as one ragged array.

    Attributes
    ----------
    indptr
        int64 [C+1]; cell i owns the entries indptr[i]:indptr[i+1].
    genes
        int32 [N]; gene ids (columns of the ranked matrix).
    values
        [N], dtype of the ranked matrix; falling within a cell.
    """

    indptr: np.ndarray
    genes: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, cell: int) -> np.ndarray:
        """Gene ids of one cell, int32."""
        cell = range(len(self))[cell]
        return self.genes[self.indptr[cell] : self.indptr[cell + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(np.split(self.genes, self.indptr[1:-1]) if len(self) else [])

    @property
    def ranks(self) -> np.ndarray:
        """int64 [N]; 0 for the first gene of each cell."""
        return np.arange(len(self.genes)) - np.repeat(self.indptr[:-1], np.diff(self.indptr))

    def top(self, k: int) -> "Ranked":
        """The first `k` genes of each cell (all of them where a cell has fewer)."""
        keep = self.ranks < k
        return Ranked(_top_indptr(self.indptr, k), self.genes[keep], self.values[keep])


def hash_strings(strings: Sequence[str] | np.ndarray, *, seed: int = 0, domain: str = "") -> np.ndarray:
    """64-bit BLAKE2b of each string, keyed by `seed`; equal on every machine and in every version.

    Parameters
    ----------
    strings
        [N]; encoded as UTF-8.
    seed
        Any integer of at most 63 bits.
    domain
        What the strings are (at most 16 bytes), so that equal strings of two kinds have unrelated hashes.

    Returns
    -------
    np.ndarray
        uint64 [N].
    """
    key, person = int(seed).to_bytes(8, "little", signed=True), domain.encode()
    keyed = blake2b(digest_size=8, key=key, person=person)
    digests = []
    for string in strings:
        state = keyed.copy()  # half the time of a new one: the key is hashed once
        state.update(str(string).encode())
        digests.append(state.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def mix(x: np.ndarray) -> np.ndarray:
    """Finalise as SplitMix64 does (Steele et al. 2014, doi:10.1145/2660193.2660195), in place on uint64."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def rank_cells(
    matrix: sparse.csr_matrix,
    cell_ids: Sequence[str] | np.ndarray,
    gene_names: Sequence[str],
    *,
    top_k: int | None = None,
    ties: Ties = "hash",
    seed: int = 0,
) -> Ranked:
    """Rank the expressed genes of each cell by falling value.

    Parameters
    ----------
    matrix
        CSR [C, G] of non-negative values on any scale that rises with expression within a cell (counts,
        normalised, logged). Zeros are not expressed.
    cell_ids
        [C]; with "hash", what ties depend on, so they should be unique to a cell.
    gene_names
        [G]; their case does not matter.
    top_k
        Keep only this many genes of each cell.
    ties
        "hash": by SplitMix64(BLAKE2b(cell id) ^ BLAKE2b(gene name)), keyed by `seed`. "cell2sentence": as
        version 1.2.0 of that library does, a shuffle of each cell's genes in turn from one generator seeded
        with 42 (depends on the order of cells and columns; `seed` is not used). Zeros that are stored, which
        that library writes as expressed genes, are left out here too.
    seed
        Another seed breaks ties another way.

    Returns
    -------
    Ranked
        `values` keep the matrix's dtype.

    Raises
    ------
    CellDataError
        For values that are NaN, infinite or negative, or names of another number than the matrix has.
    """
    _check_names(matrix, cell_ids, gene_names)
    ranked = _rank(matrix, matrix.data, cell_ids, gene_names, top_k, ties, seed)
    if ranked is not None:
        return ranked
    matrix = _positive(matrix)
    return rank_by(matrix, matrix.data, cell_ids, gene_names, top_k=top_k, ties=ties, seed=seed)


def rank_by(
    matrix: sparse.csr_matrix,
    by: np.ndarray,
    cell_ids: Sequence[str] | np.ndarray,
    gene_names: Sequence[str],
    *,
    top_k: int | None = None,
    ties: Ties = "hash",
    seed: int = 0,
) -> Ranked:
    """Rank the entries of `matrix` by other values than it holds.

    Parameters
    ----------
    matrix
        CSR [C, G]; its values are those of the result.
    by
        [nnz]; what entries are ranked by, all above 0 and finite.
    cell_ids, gene_names, top_k, ties, seed
        See `rank_cells`.

    Raises
    ------
    CellDataError
        If a value to rank by is not above 0 and finite, or a column of the matrix is not one of the genes.
    """
    ranked = _rank(matrix, by, cell_ids, gene_names, top_k, ties, seed)
    if ranked is None:
        raise CellDataError(
            "a value to rank by is not above 0 and finite, or the matrix has a column number outside "
            f"0 … {len(gene_names) - 1}"
        )
    return ranked


def _check_names(matrix: sparse.csr_matrix, cell_ids: Sequence[str] | np.ndarray, gene_names: Sequence[str]) -> None:
    if not (sparse.issparse(matrix) and matrix.format == "csr"):
        raise CellDataError("rank_cells takes a SciPy CSR matrix; expression_matrix makes one of an AnnData")
    if matrix.shape != (len(cell_ids), len(gene_names)):
        raise CellDataError(
            f"the matrix has {matrix.shape[0]} cells and {matrix.shape[1]} genes, "
            f"but there are {len(cell_ids)} cell ids and {len(gene_names)} gene names"
        )


def _positive(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Without the zeros that are stored."""
    if matrix.nnz and not (matrix.data.min() >= 0 and np.isfinite(matrix.data.max())):
        raise CellDataError("the matrix holds NaN, infinite or negative values; expression_matrix says where")
    matrix = matrix.copy()
    matrix.eliminate_zeros()
    return matrix


def _rank(
    matrix: sparse.csr_matrix,
    by: np.ndarray,
    cell_ids: Sequence[str] | np.ndarray,
    gene_names: Sequence[str],
    top_k: int | None,
    ties: Ties,
    seed: int,
) -> Ranked | None:
    """None if a value is not above 0 and finite, or a column not a gene."""
    indptr = matrix.indptr.astype(np.int64)
    if not len(by) == len(matrix.indices) == len(matrix.data) >= indptr[-1] or (np.diff(indptr) < 0).any():
        raise CellDataError("the CSR matrix is broken: its arrays do not fit each other")
    if ties == "hash":
        wanted = indptr if top_k is None else _top_indptr(indptr, top_k)
        cell_keys = hash_strings(cell_ids, seed=seed, domain="cell")
        return _rank_by_keys(matrix, indptr, by, cell_keys, _gene_keys(tuple(gene_names), seed), wanted)
    if ties == "cell2sentence":
        if len(by) and not (by.min() > 0 and np.isfinite(by.max())):
            return None
        order = _shuffled_order(indptr, by)
        ranked = Ranked(indptr, matrix.indices[order].astype(np.int32), matrix.data[order])
        return ranked if top_k is None else ranked.top(top_k)
    raise CellDataError(f"ties must be 'hash' or 'cell2sentence', it is {ties!r}")


@lru_cache(maxsize=4)  # a large data set is ranked block by block, always with the same genes
def _gene_keys(names: tuple[str, ...], seed: int) -> np.ndarray:
    return hash_strings([str(name).upper() for name in names], seed=seed, domain="gene")


def _rank_by_keys(
    matrix: sparse.csr_matrix,
    indptr: np.ndarray,
    by: np.ndarray,
    cell_keys: np.ndarray,
    gene_keys: np.ndarray,
    wanted: np.ndarray,
) -> Ranked | None:
    from .ranking_kernel import rank_rows  # numba takes half a second to import

    codes, largest = _codes(by)
    values = np.ascontiguousarray(matrix.data)
    # the kernel only moves values: as bits where it is compiled for them, as places otherwise
    plain = values.dtype.itemsize in (4, 8)
    moved = values.view(f"u{values.dtype.itemsize}") if plain else np.arange(len(values), dtype=np.uint64)
    genes, out = np.empty(wanted[-1], np.int32), np.empty(wanted[-1], moved.dtype)
    indices = np.ascontiguousarray(matrix.indices, dtype=np.int32)
    floats = by.dtype.kind == "f"
    bad_row = rank_rows(indptr, indices, codes, largest, floats, moved, cell_keys, gene_keys, wanted, genes, out)
    return Ranked(wanted, genes, out.view(values.dtype) if plain else values[out]) if bad_row < 0 else None


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.uint64]:
    """uint32 or uint64 that order positive values as they are ordered, and the code of the greatest finite one.

    What is not above 0 and finite has the code 0 or one beyond the greatest.
    """
    if values.dtype.kind not in "fiub" or values.dtype.itemsize > 8:
        raise CellDataError(f"values of type {values.dtype} cannot be ranked")
    size = max(4, values.dtype.itemsize)
    kind = "i" if values.dtype.kind == "b" else values.dtype.kind
    codes = np.ascontiguousarray(values, dtype=f"{kind}{size}")
    # bit patterns of positive floats rise with them; those of negative numbers have the first bit set
    largest = np.finfo(codes.dtype).max.view(f"u{size}") if kind == "f" else np.iinfo(codes.dtype).max
    return codes.view(f"u{size}"), np.uint64(largest)


def _top_indptr(indptr: np.ndarray, k: int) -> np.ndarray:
    if k < 1:
        raise CellDataError(f"top_k must be at least 1, it is {k}")
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.minimum(np.diff(indptr), k))])


def _shuffled_order(indptr: np.ndarray, values: np.ndarray) -> np.ndarray:
    # One generator runs through all cells, so the loop stays: a cell's shuffle depends on all before it.
    generator = np.random.RandomState(_CELL2SENTENCE_SEED)
    order = np.arange(indptr[-1])
    for start, stop in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
        cell = order[start:stop]
        generator.shuffle(cell)
        # falling and stable without negating: unsigned integers have no negative
        falling = (stop - start - 1) - np.argsort(values[cell[::-1]], kind="stable")[::-1]
        order[start:stop] = cell[falling]
    return order
