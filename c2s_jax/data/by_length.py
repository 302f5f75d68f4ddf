"""Rows of different lengths in batches of few shapes, so that a program compiled once a shape is compiled seldom."""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SHORTEST = 32

Shape = tuple[int, int]


def bucket(length: int) -> int:
    """Length to pad to: a multiple of 32 and a quarter of the power of two below; above 128 at most a fifth pads."""
    step = max(SHORTEST, (1 << max(length - 1, 1).bit_length()) // 8)
    return -(-length // step) * step


def by_length(
    lengths: Sequence[int] | NDArray[np.integer],
    batch_size: int,
    *,
    tokens: int | None = None,
    parts: int = 1,
    longest: int | None = None,
) -> Iterator[tuple[NDArray[np.int64], Shape]]:
    """Numbers of the rows that go together, short ones first, and the shape (B, T) that they are padded to.

    Parameters
    ----------
    lengths
        Of N rows.
    batch_size
        Most rows a batch.
    tokens, parts
        A batch is split into so many parts, of at most so many tokens, or of one row; the longer the rows the fewer.
    longest
        Most of T, for models that read no more.
    """

    def shape_of(length: int) -> Shape:
        width = min(bucket(length), longest or sys.maxsize)
        return batch_size if tokens is None else min(batch_size, max(1, tokens // width) * parts), width

    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(order):
        rows = order[start : start + batch_size]
        shape = shape_of(int(sizes[rows[-1]]))
        while len(rows) > shape[0]:
            rows = rows[: shape[0]]
            shape = shape_of(int(sizes[rows[-1]]))
        yield rows, shape
        start += len(rows)


def padded(rows: Sequence[NDArray], shape: Shape, fill: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows as an array [B, T] padded on the right, and their lengths [B]; rows beyond them hold one token."""
    tokens, lengths = np.full(shape, fill, np.int32), np.ones(shape[0], np.int32)
    lengths[: len(rows)] = [len(row) for row in rows]
    inside = np.arange(shape[1]) < lengths[:, None]
    inside[len(rows) :] = False
    tokens[inside] = np.concatenate(rows)
    return tokens, lengths
