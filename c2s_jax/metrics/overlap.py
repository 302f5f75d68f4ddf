"""Agreement of two gene lists."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PADDING = -1
_LAST = np.iinfo(np.int32).max

GeneLists = Any
"""One list of gene names or ids, a sequence of such lists, or an int array [B, K] padded with -1."""


def gene_overlap(generated: GeneLists, target: GeneLists) -> Any:
    """Share of the target's genes that were generated, ``|G ∩ T| / |T|`` on unique genes.

    Parameters
    ----------
    generated, target
        One gene list each (names or ids), or B of them: a sequence of lists, or int ids [B, K] and [B, M]
        padded with -1 (the widths may differ).

    Returns
    -------
    float, or float32 [B] for B pairs.

    Raises
    ------
    ValueError
        When a target has no gene (its overlap has no value), or the two sides differ in number.
    """
    common, _, n_target, single = _counts(generated, target)
    if not n_target.all():
        raise ValueError(f"target {int(np.argmin(n_target))} has no gene, so its overlap has no value; leave it out")
    return _answer(common / n_target, single)


def gene_jaccard(generated: GeneLists, target: GeneLists) -> Any:
    """Jaccard index ``|G ∩ T| / |G ∪ T|`` on unique genes; arguments and errors as in `gene_overlap`."""
    common, n_generated, n_target, single = _counts(generated, target)
    if not n_target.all():
        raise ValueError(f"target {int(np.argmin(n_target))} has no gene; leave it out")
    return _answer(common / (n_generated + n_target - common), single)


def positional_agreement(generated: GeneLists, target: GeneLists) -> Any:
    """Share of the target's positions at which the generated list names the same gene; as in `gene_overlap`."""
    left, right, single = _padded_pair(generated, target)
    width = min(left.shape[1], right.shape[1])
    same = (left[:, :width] == right[:, :width]) & (right[:, :width] != PADDING)
    n_target = (right != PADDING).sum(axis=1)
    if not n_target.all():
        raise ValueError(f"target {int(np.argmin(n_target))} has no gene; leave it out")
    return _answer(same.sum(axis=1) / n_target, single)


def pad_gene_lists(lists: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
    """Stack gene-id lists of many lengths into int32 [B, K], padded with -1."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    out = np.full((len(lists), max(1, int(lengths.max(initial=0)))), PADDING, np.int32)
    if lengths.sum():
        out[np.arange(out.shape[1]) < lengths[:, None]] = np.concatenate(lists).astype(np.int32)
    return out


def _counts(generated: GeneLists, target: GeneLists) -> tuple[Any, Any, Any, bool]:
    left, right, single = _padded_pair(generated, target)
    common, n_left, n_right = (np.asarray(x, np.float32) for x in _set_sizes(left, right))
    return common, n_left, n_right, single


def _padded_pair(generated: GeneLists, target: GeneLists) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], bool]:
    """Ids of both sides, int32 [B, K] and [B, M], and whether one pair was given."""
    left, left_single = _as_lists(generated)
    right, right_single = _as_lists(target)
    if left_single != right_single or len(left) != len(right):
        raise ValueError(f"generated holds {len(left)} gene lists and target {len(right)}; give one for each")
    if _has_names(left) or _has_names(right):
        left, right = _names_to_ids(left, right)
    arrays = [x if isinstance(x, np.ndarray) else pad_gene_lists(x) for x in (left, right)]
    return _checked(arrays[0]), _checked(arrays[1]), left_single


def _as_lists(genes: GeneLists) -> tuple[Any, bool]:
    if isinstance(genes, str):
        raise ValueError("a gene list is a list of names or ids, not one string; split the sentence first")
    if hasattr(genes, "ndim"):
        array = np.asarray(genes)
        if array.ndim not in (1, 2):
            raise ValueError(f"gene ids must be [K] or [B, K], got shape {array.shape}")
        return (array[None], True) if array.ndim == 1 else (array, False)
    genes = list(genes)
    if all(isinstance(g, str) or np.ndim(g) == 0 for g in genes):
        return [genes], True
    return genes, False


def _has_names(lists: Any) -> bool:
    if isinstance(lists, np.ndarray):
        return lists.dtype.kind not in "iu"
    return any(isinstance(g, str) for genes in lists for g in genes[:1])


def _names_to_ids(left: Any, right: Any) -> tuple[list[Any], list[Any]]:
    both = [[str(g) for g in genes] for genes in (*left, *right)]
    flat = np.array([g for genes in both for g in genes], dtype=np.str_)
    _, ids = np.unique(flat, return_inverse=True)
    parts = np.split(ids, np.cumsum([len(genes) for genes in both])[:-1])
    return parts[: len(left)], parts[len(left) :]


def _checked(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if ids.size == 0:
        ids = np.full((len(ids), 1), PADDING)
    if ids.min(initial=0) < PADDING or ids.max(initial=0) >= _LAST:
        raise ValueError(f"gene ids must be 0 or more, {PADDING} for padding; got {int(ids.min())} to {int(ids.max())}")
    return ids.astype(np.int32)


@jax.jit
@jax.vmap
def _set_sizes(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """|L ∩ R|, |L| and |R| for the sets of ids in two padded rows."""
    left_sorted, left_new = _unique(left)
    right_sorted, right_new = _unique(right)
    at = jnp.minimum(jnp.searchsorted(right_sorted, left_sorted), right_sorted.size - 1)
    common = left_new & (right_sorted[at] == left_sorted)
    return common.sum(), left_new.sum(), right_new.sum()


def _unique(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Ids in order, padding last, and True at the first of each."""
    ordered = jnp.sort(jnp.where(ids == PADDING, _LAST, ids))
    new = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    return ordered, new & (ordered != _LAST)


def _answer(values: np.ndarray[Any, Any], single: bool) -> Any:
    return float(values[0]) if single else values.astype(np.float32)
