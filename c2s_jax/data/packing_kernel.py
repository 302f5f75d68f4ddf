"""Best-fit packing in about log(row length) steps an example.

Rows with equal space left form a heap by row number, and a binary tree tells which spaces some row has left.
"""

import numpy as np

from c2s_jax.jit import compiled

_NONE = -1


@compiled
def best_fit(lengths: np.ndarray, rows: int, seq_len: int) -> np.ndarray:
    """Row of each example, taken in order: the fullest that holds it, of those the first; −1 if none does.

    `lengths` are 0 … `seq_len`.
    """
    leaves = 1
    while leaves <= seq_len:
        leaves *= 2
    held = np.zeros(2 * leaves, np.bool_)  # node i: whether a row has a space of the leaves below it
    heaps = np.full(seq_len + 1, _NONE, np.int32)  # space left → first row of the heap
    left, right = np.full(rows, _NONE, np.int32), np.full(rows, _NONE, np.int32)
    opened = 0
    row_of = np.full(len(lengths), _NONE, np.int64)
    for example in range(len(lengths)):
        length = lengths[example]
        space = _least_held(held, leaves, length)
        if space != _NONE:
            row = heaps[space]
            heaps[space] = _meld(left[row], right[row], left, right)
            left[row] = right[row] = _NONE
            if heaps[space] == _NONE:
                _clear(held, leaves + space)
        elif opened < rows:
            row, space = np.int32(opened), seq_len
            opened += 1
        else:
            continue
        row_of[example] = row
        space -= length
        heaps[space] = _meld(heaps[space], row, left, right)
        _set(held, leaves + space)
    return row_of


@compiled
def _least_held(held: np.ndarray, leaves: int, length: int) -> int:
    """The least space held that is at least `length`, or −1."""
    node = leaves + length
    if not held[node]:
        # up until a subtree to the right holds one, then down to its first
        while node > 1 and (node & 1 or not held[node + 1]):
            node >>= 1
        if node == 1:
            return _NONE
        node += 1
        while node < leaves:
            node *= 2
            if not held[node]:
                node += 1
    return node - leaves


@compiled
def _set(held: np.ndarray, node: int) -> None:
    while node and not held[node]:
        held[node] = True
        node >>= 1


@compiled
def _clear(held: np.ndarray, node: int) -> None:
    held[node] = False
    while node > 1 and not held[node ^ 1]:
        node >>= 1
        held[node] = False


@compiled
def _meld(one: int, other: int, left: np.ndarray, right: np.ndarray) -> int:
    """Join two skew heaps (Sleator and Tarjan 1986, doi:10.1137/0215004), given by their first rows."""
    if one == _NONE or other == _NONE:
        return max(one, other)
    one, other = min(one, other), max(one, other)
    first = one
    while True:
        below = right[one]
        right[one] = left[one]
        if below == _NONE:
            left[one] = other
            return first
        left[one] = min(below, other)
        one, other = min(below, other), max(below, other)
