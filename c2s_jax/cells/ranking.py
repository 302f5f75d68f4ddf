"""Genes of each cell by falling expression, with ties broken reproducibly.

Most of a cell is ties (counts 1, 2, 3, …), so how they are broken decides most of a cell sentence. Here a tie
is broken by a keyed hash of (cell, gene): the result depends neither on the order of cells or genes in the
matrix nor on which other cells are in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from scipy import sparse

from .errors import CellDataError

Ties = Literal["hash", "cell2sentence"]

# cell2sentence.utils.generate_sentences seeds numpy's global generator with this
_CELL2SENTENCE_SEED = 42
# elements sorted together: keys and scratch of a block stay in the processor's second-level cache
_BLOCK = 1 << 15
_VALUE_BITS = 31
_PAD = np.uint64(0xFFFFFFFFFFFFFFFF)


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
        if k < 1:
            raise CellDataError(f"top_k must be at least 1, it is {k}")
        keep = self.ranks < k
        return Ranked(_offsets(np.minimum(np.diff(self.indptr), k)), self.genes[keep], self.values[keep])


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
    digests = [blake2b(str(s).encode(), digest_size=8, key=key, person=person).digest() for s in strings]
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
    matrix = _checked(matrix, cell_ids, gene_names)
    order = ranking_order(matrix, matrix.data, cell_ids, gene_names, ties=ties, seed=seed)
    ranked = Ranked(matrix.indptr.astype(np.int64), matrix.indices[order].astype(np.int32), matrix.data[order])
    return ranked if top_k is None else ranked.top(top_k)


def ranking_order(
    matrix: sparse.csr_matrix,
    values: np.ndarray,
    cell_ids: Sequence[str] | np.ndarray,
    gene_names: Sequence[str],
    *,
    ties: Ties = "hash",
    seed: int = 0,
) -> np.ndarray:
    """Positions of `matrix`'s entries, cell by cell, by falling `values` (all above 0), int64 [nnz]."""
    indptr = matrix.indptr.astype(np.int64)
    if ties == "hash":
        cells = hash_strings(cell_ids, seed=seed, domain="cell")
        genes = hash_strings([str(name).upper() for name in gene_names], seed=seed, domain="gene")
        return _falling(indptr, values, _TieKeys(cells, genes, matrix.indices))
    if ties == "cell2sentence":
        shuffled = _shuffled_positions(indptr)
        return shuffled[_falling(indptr, values[shuffled], None)]
    raise CellDataError(f"ties must be 'hash' or 'cell2sentence', it is {ties!r}")


def _checked(
    matrix: sparse.csr_matrix, cell_ids: Sequence[str] | np.ndarray, gene_names: Sequence[str]
) -> sparse.csr_matrix:
    if not (sparse.issparse(matrix) and matrix.format == "csr"):
        raise CellDataError("rank_cells takes a SciPy CSR matrix; expression_matrix makes one of an AnnData")
    if matrix.shape != (len(cell_ids), len(gene_names)):
        raise CellDataError(
            f"the matrix has {matrix.shape[0]} cells and {matrix.shape[1]} genes, "
            f"but there are {len(cell_ids)} cell ids and {len(gene_names)} gene names"
        )
    if matrix.nnz and not (matrix.data.min() >= 0 and np.isfinite(matrix.data.max())):
        raise CellDataError("the matrix holds NaN, infinite or negative values; expression_matrix says where")
    if matrix.nnz and matrix.data.min() == 0:
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start+1, … of each start, `lengths` of them, one after another."""
    shift = starts - (np.cumsum(lengths) - lengths)
    return np.arange(lengths.sum()) + np.repeat(shift, lengths)


def _shuffled_positions(indptr: np.ndarray) -> np.ndarray:
    # One generator runs through all cells, so the loop stays: a cell's shuffle depends on all before it.
    generator = np.random.RandomState(_CELL2SENTENCE_SEED)
    positions = np.arange(indptr[-1])
    for start, stop in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
        generator.shuffle(positions[start:stop])
    return positions


@dataclass(frozen=True)
class _TieKeys:
    cells: np.ndarray
    genes: np.ndarray
    indices: np.ndarray

    def __call__(self, cells: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """uint64 keys of the entries at `positions`, of the cells `cells`."""
        return mix(self.genes[self.indices[positions]] ^ self.cells[cells])


def _falling(indptr: np.ndarray, values: np.ndarray, keys: _TieKeys | None) -> np.ndarray:
    """Stable order by (cell, −value, key).

    Each entry becomes one sortable integer, 31 bits of its float32 value (bit patterns of positive floats
    rise with them), the first bits of its tie key, and its place in the cell; rows of about equal length are
    sorted side by side as a matrix. What those bits cannot tell apart is sorted again on the whole keys.
    """
    lengths = np.diff(indptr)
    order = np.empty(len(values), np.int64)
    by_length = np.argsort(lengths, kind="stable")
    by_length = by_length[np.searchsorted(lengths[by_length], 1) :]
    first = 0
    while first < len(by_length):
        last = _block_end(lengths, by_length, first)
        rows = by_length[first:last]
        spans = _ranges(indptr[rows], lengths[rows])
        order[spans] = _sorted_block(rows, lengths[rows], spans, indptr, values, keys)
        first = last
    return order


def _block_end(lengths: np.ndarray, by_length: np.ndarray, first: int) -> int:
    last = min(len(by_length), first + max(1, _BLOCK // int(lengths[by_length[first]])))
    while last - first > 1 and (last - first) * int(lengths[by_length[last - 1]]) > _BLOCK:
        last = first + max(1, (last - first) // 2)
    return last


def _sorted_block(
    rows: np.ndarray,
    lengths: np.ndarray,
    spans: np.ndarray,
    indptr: np.ndarray,
    values: np.ndarray,
    keys: _TieKeys | None,
) -> np.ndarray:
    width = int(lengths[-1])
    place_bits = max(1, (width - 1).bit_length())
    exact = values[spans]
    starts = np.repeat(indptr[rows], lengths)
    with np.errstate(over="ignore"):
        single = np.maximum(exact.astype(np.float32), np.finfo(np.float32).smallest_subnormal)
    codes = (np.uint32(0x7FFFFFFF) - single.view(np.uint32)).astype(np.uint64) << np.uint64(64 - _VALUE_BITS)
    if keys is not None:
        tie = keys(np.repeat(rows, lengths), spans)
        tie >>= np.uint64(_VALUE_BITS + place_bits)
        tie <<= np.uint64(place_bits)
        codes |= tie
    codes |= (spans - starts).view(np.uint64)
    ragged = width != int(lengths[0])
    inside = np.arange(width) < lengths[:, None] if ragged else np.ones((len(rows), width), bool)
    table = np.full(inside.shape, _PAD) if ragged else codes.reshape(inside.shape)
    if ragged:
        table[inside] = codes
    table.sort(axis=1)
    codes = table[inside] if ragged else table.reshape(-1)
    order = (codes & np.uint64((1 << place_bits) - 1)).view(np.int64) + starts
    ends = np.cumsum(lengths)
    if keys is not None:
        _resolve(order, codes >> np.uint64(place_bits), ends, rows, keys)
    if exact.dtype != np.float32:
        _resort_merged(order, ends, rows, values, keys)
    return order


def _resolve(order: np.ndarray, prefix: np.ndarray, ends: np.ndarray, rows: np.ndarray, keys: _TieKeys) -> None:
    """Put right, in place, runs of entries whose value and first key bits are equal."""
    pairs = np.flatnonzero(prefix[1:] == prefix[:-1])
    if not len(pairs):
        return
    at = np.unique(np.concatenate([pairs, pairs + 1]))
    owners = np.searchsorted(ends, at, side="right")
    tie = keys(rows[owners], order[at])
    order[at] = order[at][np.lexsort((tie, prefix[at], owners))]


def _resort_merged(
    order: np.ndarray, ends: np.ndarray, rows: np.ndarray, values: np.ndarray, keys: _TieKeys | None
) -> None:
    """Sort again, in place, cells in which rounding to float32 made two unequal values equal."""
    ranked = values[order]
    with np.errstate(over="ignore"):
        single = ranked.astype(np.float32)
    wrong = (ranked[1:] > ranked[:-1]) | ((ranked[1:] != ranked[:-1]) & (single[1:] == single[:-1]))
    # a rise from one cell to the next is none; sorting those again would change nothing, but take time
    wrong[ends[:-1] - 1] = False
    if not wrong.any():
        return
    cells = np.unique(np.searchsorted(ends, np.flatnonzero(wrong), side="right"))
    lengths = np.diff(ends, prepend=0)[cells]
    at, owners = _ranges(ends[cells] - lengths, lengths), np.repeat(cells, lengths)
    tie = order[at] if keys is None else keys(rows[owners], order[at])
    # -value would wrap for unsigned integers: rank the values first
    falling = -np.unique(values[order[at]], return_inverse=True)[1]
    order[at] = order[at][np.lexsort((tie, falling, owners))]
