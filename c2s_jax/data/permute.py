"""Keyed pseudo-random permutations with random access, and keyed generators."""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6


def generator(*key: int) -> np.random.Generator:
    """A generator that depends on ``key`` alone (up to three non-negative integers)."""
    words = [*key, 0, 0, 0][:3]
    if len(key) > 3:
        raise ValueError(f"at most three key words, got {key}")
    return np.random.Generator(np.random.Philox(key=words[:2], counter=[0, 0, 0, words[2]]))


def permuted(index: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
    """Items that an endless stream of permutations of ``range(n)`` has at the places ``index``.

    Epoch ``i // n`` is one permutation, keyed by ``(key, epoch)``: a Feistel network over the next even power of
    two, walked until it falls below n (Black and Rogaway 2002). Needs no memory for the permutation itself.

    Parameters
    ----------
    index
        Places in the stream, any shape.
    n
        Number of items.
    key
        Which stream.
    """
    if n < 1:
        raise ValueError("cannot permute an empty set")
    epoch, place = np.divmod(np.asarray(index, np.int64), n)
    half = np.uint64(max(1, -(-int(n - 1).bit_length() // 2)))
    mask = (np.uint64(1) << half) - np.uint64(1)
    salt = _mix(_mix(epoch.astype(np.uint64)) ^ _mix(np.full(epoch.shape, key, np.uint64)))
    out = _feistel(place.astype(np.uint64), salt, half, mask)
    while (outside := out >= n).any():
        out[outside] = _feistel(out[outside], salt[outside], half, mask)
    return out.astype(np.int64)


def _feistel(x: NDArray[np.uint64], salt: NDArray[np.uint64], half: np.uint64, mask: np.uint64) -> NDArray[np.uint64]:
    left, right = x >> half, x & mask
    for i in range(ROUNDS):
        left, right = right, left ^ (_mix(right ^ _mix(salt + np.uint64(i))) & mask)
    return (left << half) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
