"""Keyed randomness: permutations with random access, hashes of keys, and generators."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 6
SMALL_HALF, SMALL_ROUNDS = 2, 12  # functions of so few bits are few, and take more rounds to mix


def generator(*key: int) -> np.random.Generator:
    """A generator that depends on ``key`` alone (up to three non-negative integers)."""
    words = [*key, 0, 0, 0][:3]
    if len(key) > 3:
        raise ValueError(f"at most three key words, got {key}")
    return np.random.Generator(np.random.Philox(key=words[:2], counter=[0, 0, 0, words[2]]))


def keys(*parts: ArrayLike) -> NDArray[np.uint64]:
    """A 64-bit hash of integers, element by element: the key of whatever these integers name together."""
    out = np.zeros((), np.uint64)
    for part in parts:
        out = _mix(out ^ _mix(np.asarray(part).astype(np.uint64)))
    return np.asarray(out, np.uint64)


def uniform(key: ArrayLike, choice: ArrayLike = 0) -> NDArray[np.float64]:
    """A number in [0, 1) for each key and choice that hangs on it."""
    return np.asarray((keys(key, choice) >> np.uint64(11)) * 2.0**-53, np.float64)


def below(n: ArrayLike, key: ArrayLike, choice: ArrayLike = 0) -> NDArray[np.int64]:
    """A number in ``range(n)`` for each key and choice that hangs on it."""
    return (uniform(key, choice) * np.asarray(n)).astype(np.int64)


def permuted(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Items that an endless stream of permutations of ``range(n)`` has at the places ``index``.

    Epoch ``i // n`` is one permutation, keyed by ``(key, epoch)``: a Feistel network over the next even power of
    two, walked until it falls below n (Black and Rogaway 2002). Needs no memory for the permutation itself.

    Parameters
    ----------
    index
        Places in the stream.
    n
        Number of items.
    key
        Which stream. All three are broadcast against each other.
    """
    index, n, key = np.broadcast_arrays(np.asarray(index, np.int64), np.asarray(n, np.int64), np.asarray(key))
    if (n < 1).any():
        raise ValueError("cannot permute an empty set")
    shape, n = n.shape, n.ravel()
    epoch, place = np.divmod(index.ravel(), n)
    half = np.maximum(1, (np.frexp((n - 1).astype(np.float64))[1] + 1) // 2).astype(np.uint64)
    salt = _mix(_mix(epoch.astype(np.uint64)) ^ _mix(key.ravel().astype(np.uint64)))
    out = _feistel(place.astype(np.uint64), salt, half)
    walking = np.flatnonzero(out >= n)
    while walking.size:
        out[walking] = _feistel(out[walking], salt[walking], half[walking])
        walking = walking[out[walking] >= n[walking]]
    return out.astype(np.int64).reshape(shape)


def _feistel(x: NDArray[np.uint64], salt: NDArray[np.uint64], half: NDArray[np.uint64]) -> NDArray[np.uint64]:
    out = _rounds(range(ROUNDS), x, salt, half)
    small = np.flatnonzero(half <= SMALL_HALF)
    if small.size:
        out[small] = _rounds(range(ROUNDS, SMALL_ROUNDS), out[small], salt[small], half[small])
    return out


def _rounds(
    numbers: range, x: NDArray[np.uint64], salt: NDArray[np.uint64], half: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for i in numbers:
        left, right = right, left ^ (_mix(right ^ _mix(salt + np.uint64(i))) & mask)
    return (left << half) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x + np.uint64(0x9E3779B97F4A7C15))
        shifted = np.asarray(x >> np.uint64(30))
        x ^= shifted
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= np.right_shift(x, np.uint64(27), out=shifted)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= np.right_shift(x, np.uint64(31), out=shifted)
    return x
