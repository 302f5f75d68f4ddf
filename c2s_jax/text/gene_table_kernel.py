"""The loops behind `GeneTokenTable`: row `variant · n + gene` of a ragged table holds a gene's tokens."""

import numpy as np

from c2s_jax.jit import compiled


@compiled
def count_tokens(
    genes: np.ndarray, indptr: np.ndarray, row_lengths: np.ndarray, n: int, first: int, last: int, counts: np.ndarray
) -> int:
    """Write the tokens of each sentence into `counts`; the place of the first gene outside 0 … n − 1, or −1.

    `first` and `last` are what the first and the last gene of a sentence add to the row.
    """
    for sentence in range(len(indptr) - 1):
        start, stop = indptr[sentence], indptr[sentence + 1]
        count = 0
        for i in range(start, stop):
            if not 0 <= genes[i] < n:
                return i
            count += row_lengths[genes[i]]
        if start + 1 == stop:
            count = row_lengths[genes[start] + first + last]
        elif start < stop:
            one, other = genes[start], genes[stop - 1]
            count += row_lengths[one + first] - row_lengths[one] + row_lengths[other + last] - row_lengths[other]
        counts[sentence] = count
    return -1


@compiled
def write_tokens(
    genes: np.ndarray,
    indptr: np.ndarray,
    tokens: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    out: np.ndarray,
) -> None:
    """Write the tokens of all sentences, one after another; `genes` are as `count_tokens` wants them."""
    end = 0
    for sentence in range(len(indptr) - 1):
        start, stop = indptr[sentence], indptr[sentence + 1]
        for i in range(start, stop):
            row = np.int64(genes[i])
            if i == start:
                row += first
            if i == stop - 1:
                row += last
            for source in range(offsets[row], offsets[row + 1]):
                out[end] = tokens[source]
                end += 1
