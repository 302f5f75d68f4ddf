"""Kendall's tau-b between two scores of the same genes, on the host and on the device."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK = 256
_MOST_GENES = 65_535  # what counters of 16 bits hold


def kendall_tau_b(left: ArrayLike, right: ArrayLike, *, undefined: float = 0.0) -> Any:
    """Kendall's tau-b, the agreement of two orders with ties, for one pair of scores or for N.

    ``(P - Q) / sqrt((P + Q + T_l) (P + Q + T_r))`` with P concordant pairs of genes, Q discordant ones, and T those
    tied on one side alone (Kendall 1945, Biometrika 33:239). Exact counts in O(G log G), on all cores.

    Parameters
    ----------
    left, right
        Scores [G] or [N, G] of the same genes, at most 65,535, of any real dtype: only their order counts.
        `position_scores` makes them of gene lists.
    undefined
        The answer where tau has none: one side is constant, or holds NaN.

    Returns
    -------
    float, or float64 [N] for N pairs.
        1 the same order, -1 the reverse, about 0 for unrelated ones.
    """
    a, b = _real(left), _real(right)
    if a.shape != b.shape or a.ndim not in (1, 2) or a.shape[-1] == 0:
        raise ValueError(f"scores must be [G] or [N, G] of the same genes, got shapes {a.shape} and {b.shape}")
    if a.shape[-1] > _MOST_GENES:
        raise ValueError(f"pairs of {a.shape[-1]} genes overflow the counters; the limit is {_MOST_GENES}")
    single = a.ndim == 1
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    invalid = _has_nan(a) | _has_nan(b)
    starts = range(0, len(a), _CHUNK)
    with ThreadPoolExecutor(max(1, min(len(starts), os.cpu_count() or 1))) as pool:
        counts = list(pool.map(lambda s: _counts(a[s : s + _CHUNK], b[s : s + _CHUNK]), starts))
    ties_a, ties_b, joint, discordant = np.concatenate([np.empty((4, 0), np.int64), *counts], axis=1).astype(np.float64)
    total = a.shape[1] * (a.shape[1] - 1) / 2
    difference = total - ties_a - ties_b + joint - 2 * discordant
    defined = ~invalid & (ties_a < total) & (ties_b < total)
    scale = np.sqrt(np.where(defined, total - ties_a, 1)) * np.sqrt(np.where(defined, total - ties_b, 1))
    tau = np.where(defined, np.clip(difference / scale, -1, 1), undefined)
    return float(tau[0]) if single else tau


@jax.jit
def kendall_tau_b_on_device(left: jax.Array, right: jax.Array, undefined: float = 0.0) -> jax.Array:
    """`kendall_tau_b` as a JAX function, to be used inside jit and vmap (a reward, say).

    Parameters
    ----------
    left, right
        Scores [..., G], broadcast against each other, at most 65,535 genes.
    undefined
        As in `kendall_tau_b`.

    Returns
    -------
    float32 [...]

    Notes
    -----
    Two sorts and one vectorised pass for each binary digit of a rank, O(G log G). No gradient: tau is a step function.
    """
    left, right = jnp.broadcast_arrays(left, right)
    if left.shape[-1] > _MOST_GENES:
        raise ValueError(f"pairs of {left.shape[-1]} genes overflow the counters; the limit is {_MOST_GENES}")
    tau = jnp.vectorize(_tau, signature="(g),(g)->()")(left, right)
    return jnp.where(jnp.isnan(tau), undefined, tau).astype(jnp.float32)


def position_scores(lists: ArrayLike, genes: ArrayLike) -> jax.Array:
    """Scores of some genes by where they stand in gene lists: minus the position.

    Parameters
    ----------
    lists
        Ids [B, K] or [K] in order of falling expression, padded with -1. Of a repeated gene the first place counts.
    genes
        Ids [G] to score, each once.

    Returns
    -------
    int32 [B, G] or [G]
        ``-position``; genes that a list lacks share the lowest rank, ``-K``. A JAX function like the tau it feeds.
    """
    wanted = jnp.asarray(genes)
    if wanted.ndim != 1:
        raise ValueError(f"genes must be [G], got shape {wanted.shape}")
    return _position_scores(jnp.asarray(lists), wanted)


@functools.partial(jnp.vectorize, signature="(k),(g)->(g)")
def _position_scores(ids: jax.Array, genes: jax.Array) -> jax.Array:
    order = jnp.argsort(ids, stable=True)
    ordered = ids[order]
    at = jnp.minimum(jnp.searchsorted(ordered, genes), ids.size - 1)
    return -jnp.where(ordered[at] == genes, order[at], ids.size).astype(jnp.int32)


def _real(values: ArrayLike) -> NDArray:
    array = np.asarray(values)
    if array.dtype.name in ("bfloat16", "float16"):
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ValueError(f"scores must be real numbers of at most 64 bits, got {array.dtype}")
    return array


def _has_nan(values: NDArray) -> NDArray[np.bool_]:
    return np.isnan(values).any(axis=1) if values.dtype.kind == "f" else np.zeros(len(values), bool)


def _codes(values: NDArray) -> NDArray:
    """Signed integers in the order of the values, equal where they are equal."""
    from c2s_jax.metrics import kendall_kernel as kernel

    if values.dtype.kind in "bi":
        return values.astype(np.int32 if values.dtype.itemsize <= 4 else np.int64)
    if values.dtype.kind == "u":
        if values.dtype.itemsize < 8:
            return values.astype(np.int64)
        return (values ^ np.uint64(1 << 63)).view(np.int64)
    bits = np.ascontiguousarray(values).view(np.int32 if values.dtype.itemsize == 4 else np.int64)
    codes = np.empty_like(bits)
    kernel.codes_of_floats(bits, codes)
    return codes


def _counts(a: NDArray, b: NDArray) -> NDArray[np.int64]:
    """Pairs of each row tied in a, tied in b, tied in both, and discordant: int64 [4, N]."""
    from c2s_jax.metrics import kendall_kernel as kernel

    n, size = a.shape
    bits = max(1, (size - 1).bit_length())
    words = np.empty((n, size), np.uint32 if bits <= 11 else np.uint64)
    order, ranks, firsts = np.empty((3, n, size), np.uint16)
    shifts, counts = np.empty(n, np.int64), np.empty((4, n), np.int64)
    codes_b = _codes(b)
    kernel.pack(codes_b, np.broadcast_to(np.arange(size, dtype=np.uint16), (n, size)), bits, words, shifts)
    words.sort(axis=1)
    kernel.ranks_of_sorted(codes_b, words, shifts, bits, order, ranks, firsts, counts[1])
    codes_a = _codes(a)
    kernel.pack(codes_a, ranks, bits, words, shifts)
    words.sort(axis=1)
    kernel.discordant_pairs(codes_a, order, firsts, words, shifts, bits, counts[0], counts[2], counts[3])
    return counts


def _tau(left: jax.Array, right: jax.Array) -> jax.Array:
    """NaN where undefined."""
    size = left.size
    left, right = jax.lax.sort((left, right), num_keys=2)
    # Ranks on the right, ties in the order of the left: neither kind of tie makes an inversion.
    right_sorted, order = jax.lax.sort((right, jnp.arange(size, dtype=jnp.int32)), num_keys=1, is_stable=True)
    total = size * (size - 1) // 2
    same_left = left[1:] == left[:-1]
    ties_left, ties_right = _tied_pairs(same_left), _tied_pairs(right_sorted[1:] == right_sorted[:-1])
    joint = _tied_pairs(same_left & (right[1:] == right[:-1]))
    difference = total - ties_left - ties_right + joint - 2 * _inversions(order)
    scale = jnp.sqrt((total - ties_left).astype(jnp.float32)) * jnp.sqrt((total - ties_right).astype(jnp.float32))
    invalid = jnp.isnan(left).any() | jnp.isnan(right).any() | (scale == 0)
    return jnp.where(invalid, jnp.nan, jnp.clip(difference / jnp.where(invalid, 1, scale), -1, 1))


def _tied_pairs(same: jax.Array) -> jax.Array:
    """Pairs within runs of equal neighbours."""
    at = jnp.arange(1, same.size + 1)
    first = jax.lax.cummax(jnp.where(same, 0, at))
    return jnp.sum(at - first)


def _inversions(permutation: jax.Array) -> jax.Array:
    """Pairs i < j with p_i > p_j of int32 [G], a permutation of 0 … G-1, digit by digit from the leading one.

    Entries lie in blocks that agree in the digits done, in their old order within a block. Pairs told apart by the next
    digit are inverted where a one stands before a zero; then zeros move to the front half of their block.
    """
    n_bits = (permutation.size - 1).bit_length()
    size = 1 << n_bits
    values = jnp.concatenate([permutation, jnp.arange(permutation.size, size, dtype=permutation.dtype)])
    count = jnp.int32(0)
    for bit in reversed(range(n_bits)):
        blocks = values.reshape(-1, 2 << bit)
        ones = (blocks >> bit) & 1
        ones_until = jnp.cumsum(ones, axis=1)
        count += jnp.sum(jnp.where(ones == 0, ones_until, 0))
        places = jnp.arange(blocks.shape[1])
        target = jnp.where(ones == 1, (1 << bit) + ones_until - 1, places - ones_until)
        target += jnp.arange(blocks.shape[0])[:, None] * blocks.shape[1]
        values = jnp.zeros(size, values.dtype).at[target.ravel()].set(blocks.ravel(), unique_indices=True)
    return count
