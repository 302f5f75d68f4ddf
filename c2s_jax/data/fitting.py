"""Sentences cut so that an example fits into a row: evenly over its gene lists, never its texts."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.formatting import Formatter, Slots
from c2s_jax.data.requests import Draft
from c2s_jax.data.token_rows import GeneLists

Measure = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Tokens of each of N examples when so many genes of each of L lists are kept."""


def cut_to_fit(
    kept: NDArray[np.int64], lengths: Measure, genes_cost: Measure, slots: Slots, limit: int
) -> NDArray[np.int64]:
    """Genes kept of each list, lowered until the examples have ``limit`` tokens; the longest lists lose first.

    Taking genes away can change the texts that tell of them, so the first cut can leave a few tokens too many; each
    round takes away at least one gene. An example that is too long with one gene of each list stays so.

    Parameters
    ----------
    kept
        Genes of each list at most, int64 [L].
    lengths
        Tokens of whole examples.
    genes_cost
        The part of them that falls as genes are taken away.
    slots
        Where the lists stand.
    """
    while True:
        excess = lengths(kept) - limit
        longest = slots.longest(kept, len(excess))
        over = (excess > 0) & (longest > 1)
        if not over.any():
            return kept
        kept = _without(np.where(over, excess, 0), longest, kept, genes_cost, slots)


def cut_prompts(
    formatter: Formatter,
    told: Callable[[NDArray[np.int64]], Draft],
    slots: Slots,
    lists: GeneLists,
    limit: int,
) -> NDArray[np.int64]:
    """`cut_to_fit` for the draft that ``told`` gives for so many genes of each list, whose texts may tell of them."""
    n = len(told(lists.lengths))

    def lengths(kept: NDArray[np.int64]) -> NDArray[np.int64]:
        return formatter.lengths(told(kept), slots, lists, kept)

    def gene_tokens(kept: NDArray[np.int64]) -> NDArray[np.int64]:
        return formatter.gene_tokens(slots, lists, kept, n)

    return cut_to_fit(lists.lengths, lengths, gene_tokens, slots, limit)


def _without(
    excess: NDArray[np.int64], longest: NDArray[np.int64], kept: NDArray[np.int64], genes_cost: Measure, slots: Slots
) -> NDArray[np.int64]:
    """Genes kept of each list when examples lose ``excess`` tokens, if so many can be lost.

    By bisection for the most genes that a list of each example may have.
    """
    chosen = np.flatnonzero(excess[slots.example])
    example, which = slots.example[chosen], slots.list[chosen]

    def capped(cap: NDArray[np.int64]) -> NDArray[np.int64]:
        out = kept.copy()
        out[which] = np.minimum(kept[which], cap[example])
        return out

    room = genes_cost(kept) - excess
    low, high = np.ones_like(longest), np.maximum(longest - 1, 1)
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = genes_cost(capped(middle)) <= room
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return capped(low)
