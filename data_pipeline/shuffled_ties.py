"""Ties as cell2sentence 1.2.0 breaks them, in blocks: one generator shuffles every cell's genes, in order of rows.

How often a shuffle draws depends on the number of genes alone, so the generator's state before any cell follows from
the cells' lengths.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_SEED = 42


def start() -> np.random.RandomState:
    """The generator before the first cell."""
    return np.random.RandomState(_SEED)


def state_of(generator: np.random.RandomState) -> NDArray[np.uint32]:
    """A generator's state, uint32 [625]; `generator_at` takes it back."""
    found = generator.get_state(legacy=False)["state"]
    return np.append(found["key"], np.uint32(found["pos"])).astype(np.uint32)


def generator_at(state: NDArray[np.uint32]) -> np.random.RandomState:
    """A generator in this state."""
    generator = np.random.RandomState()
    generator.set_state({"bit_generator": "MT19937", "state": {"key": state[:-1], "pos": int(state[-1])}})
    return generator


def skip(generator: np.random.RandomState, lengths: Sequence[int]) -> None:
    """Advance the generator as shuffling cells with so many genes does."""
    for length in lengths:
        generator.shuffle(np.empty(length, np.int8))


def order(matrix: sparse.csr_matrix, values: NDArray, generator: np.random.RandomState) -> NDArray[np.int64]:
    """Positions of the entries of a block, cell by cell, by falling value; what is equal stays as shuffled."""
    positions = np.arange(matrix.nnz)
    # One generator runs through all cells, so the loop stays.
    for first, last in zip(matrix.indptr[:-1].tolist(), matrix.indptr[1:].tolist(), strict=True):
        generator.shuffle(positions[first:last])
    cells = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    # -value would wrap for unsigned integers
    return positions[np.lexsort((-values[positions].astype(np.float64), cells))]
