"""Batches of prompts of similar length, in few shapes."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 16
SMALLEST_BUCKET = 32


def by_length(prompts: Sequence[NDArray], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Numbers of prompts in batches, short ones first."""
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    for start in range(0, len(prompts), batch_size):
        yield order[start : start + batch_size]


def bucket(length: int) -> int:
    """Length to pad to: a power of two or one and a half of one, so that few programs serve all."""
    power = 1 << max(length - 1, 1).bit_length()
    return max(SMALLEST_BUCKET, power * 3 // 4 if length <= power * 3 // 4 else power)


def padded(prompts: Sequence[NDArray], rows: int, pad_id: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Prompts [rows, T] padded on the right, and their lengths [rows]; rows beyond them hold one token."""
    lengths = np.ones(rows, np.int32)
    lengths[: len(prompts)] = [len(prompt) for prompt in prompts]
    tokens = np.full((rows, bucket(int(lengths.max()))), pad_id, np.int32)
    inside = np.arange(tokens.shape[1]) < lengths[:, None]
    inside[len(prompts) :] = False
    tokens[inside] = np.concatenate(prompts)
    return tokens, lengths
