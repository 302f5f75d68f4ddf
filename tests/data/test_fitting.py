import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_jax.data.fitting import cut_to_fit
from c2s_jax.data.formatting import Slots

COST = np.array([1, 2, 3, 5, 9])  # tokens of each gene


def cut(examples: list[list[list[int]]], limit: int, text: int = 0) -> list[list[int]]:
    """Genes kept of each list; examples cost their genes, the text, and a token for each ten genes of the longest."""
    lists = [np.array(genes) for example in examples for genes in example]
    example = np.repeat(np.arange(len(examples)), [len(e) for e in examples])

    def genes_cost(kept):
        each = [COST[genes[:n]].sum() for genes, n in zip(lists, kept)]
        return np.bincount(example, each, len(examples)).astype(np.int64)

    def lengths(kept):
        longest = np.zeros(len(examples), np.int64)
        np.maximum.at(longest, example, kept)
        return genes_cost(kept) + text + longest // 10

    slots = Slots(example, np.arange(len(lists)), np.zeros(len(lists), np.int64), np.ones(len(lists), bool))
    kept = cut_to_fit(np.array([len(genes) for genes in lists]), lengths, genes_cost, slots, limit)
    out = [kept[example == i].tolist() for i in range(len(examples))]
    assert all(tokens <= limit or max(genes) <= 1 for tokens, genes in zip(lengths(kept), out))
    return out


def cost_of(example: list[list[int]], kept: list[int], text: int) -> int:
    return text + max(kept) // 10 + sum(COST[genes[:k]].sum() for genes, k in zip(example, kept))


examples = st.lists(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=30), min_size=1, max_size=5), min_size=1, max_size=5
)


@settings(max_examples=200, deadline=None)
@given(examples, st.integers(1, 200), st.integers(0, 20))
def test_the_longest_lists_lose_and_no_more_than_needed(given, limit, text):
    for example, kept in zip(given, cut(given, limit, text)):
        whole = [len(genes) for genes in example]
        if cost_of(example, whole, text) <= limit:
            assert kept == whole
            continue
        cap = max(kept)
        assert kept == [min(n, cap) for n in whole]  # even: one bound for all
        if cost_of(example, kept, text) <= limit:
            # One gene more of each list would be too much, but for what the text lost by the cut.
            more = [min(n, cap + 1) for n in whole]
            assert cost_of(example, more, text) > limit - max(whole) // 10
        else:
            assert cap == 1


def test_what_fits_is_left_alone():
    given = [[[0] * 5, [1] * 3], [[4] * 20]]
    assert cut(given, 182) == [[5, 3], [20]] == cut(given, 1000)
    assert cut(given, 11) == [[5, 3], [1]]


@pytest.mark.parametrize("limit", [0, 3])
def test_one_gene_of_each_list_stays(limit):
    assert cut([[[4] * 9, [4] * 2]], limit) == [[1, 1]]
