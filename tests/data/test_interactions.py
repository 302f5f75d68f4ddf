import dataclasses

import numpy as np
import pytest

from c2s_jax.data.corpus import Interaction
from c2s_jax.data.formatting import Slots
from c2s_jax.data.interactions import Interactions
from c2s_jax.data.ragged import offsets
from c2s_jax.data.token_rows import GeneLists
from c2s_jax.tasks.interactions import NONE_KNOWN, interaction_sentence


def lists_of(lists: list[list[int]]) -> GeneLists:
    lengths = np.array([len(x) for x in lists])
    genes = np.array([g for x in lists for g in x], np.int32)
    return GeneLists(genes, offsets(lengths)[:-1], lengths, np.arange(len(genes) + 1))


def told(rich, lists, example, *, asked=None, kept=None, most=20) -> list[list[str]]:
    n, n_examples = len(lists), max(example) + 1
    asked = np.ones(n, bool) if asked is None else np.array(asked)
    slots = Slots(np.array(example), np.arange(n), np.zeros(n, np.int64), asked)
    strongest = Interactions(rich).strongest(slots, lists_of(lists), n_examples, most)
    texts = strongest.texts(np.full(n_examples, 999) if kept is None else np.array(kept))
    values = [texts.value(code) for code in texts.codes.tolist()]
    return [values[a:b] for a, b in zip(texts.indptr, texts.indptr[1:])]


def sentences(rich, lists: list[list[int]], most: int) -> list[str]:
    """By plain loops: interactions whose genes are all there, those first whose last gene ranks best."""
    best: dict[int, int] = {}
    for genes in lists:
        for rank, gene in enumerate(genes):
            best[gene] = min(rank, best.get(gene, rank))
    found = [i for i in rich.interactions if {*i.a, *i.b} <= set(best)]
    found.sort(key=lambda i: max(best[g] for g in (*i.a, *i.b)))
    sides = [(i.kind, *([rich.names[g] for g in side] for side in (i.a, i.b))) for i in found[:most]]
    return [interaction_sentence(*side) for side in sides] or [NONE_KNOWN]


@pytest.mark.parametrize("most", [1, 3, 20])
@pytest.mark.parametrize("seed", range(4))
def test_against_plain_loops(rich, most, seed):
    """Whole sentences and shorter ones, interactions of one gene to four, some of them with a gene twice."""
    rng = np.random.default_rng(seed)
    sides = [(rng.integers(0, 110, rng.integers(1, 3)), rng.integers(0, 110, rng.integers(1, 3))) for _ in range(300)]
    sides += [(gene, gene) for gene in rng.integers(0, 110, (20, 1))]
    known = [Interaction("db", "physical", a.astype(np.int32), b.astype(np.int32)) for a, b in sides]
    corpus = dataclasses.replace(rich, interactions=known)
    lists = [rng.permutation(110)[: rng.integers(0, 100)].tolist() for _ in range(12)]
    example = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 4]
    for kept in ([110] * 5, [60, 40, 1, 9, 0], rng.integers(0, 110, 5).tolist()):
        cut = [genes[: kept[i]] for genes, i in zip(lists, example)]
        expected = [sentences(corpus, [x for x, e in zip(cut, example) if e == i], most) for i in range(5)]
        assert told(corpus, lists, example, kept=kept, most=most) == expected


def test_only_genes_that_are_written(rich):
    names = rich.names
    text = interaction_sentence("ligand-receptor", [names[5]], [names[6], names[7]])
    assert told(rich, [[5, 6], [7]], [0, 0]) == [[text]]
    assert told(rich, [[5, 6], [90, 7]], [0, 0], kept=[2]) == [[text]]
    assert told(rich, [[5, 6], [90, 7]], [0, 0], kept=[1]) == [[NONE_KNOWN]]


def test_the_answer_is_not_told(rich):
    """Lists of the response give nothing away."""
    assert told(rich, [[5, 6], [7]], [0, 0], asked=[True, False]) == [[NONE_KNOWN]]
