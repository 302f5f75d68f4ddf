"""Speculative decoding: the same answers in fewer passes, and the exact distribution over all lists there are."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from c2s_jax.generation import GeneDrafts, GeneGrammar, Sampler, Sampling
from tests.generation.tiny import CONFIG, Teacher, TinyModel, distribution, one_device
from tests.generation.toy_names import END, PIECES, all_lists, table_of

GENES = ["A", "AB", "ABC", "B", "BC", "CABC", "CAAC"]
FREQUENCIES = [5, 1, 9, 3, 4, 8, 7]
NEW = 24  # tokens, three times the window


def make_drafts(grammar: GeneGrammar, genes: list[str], width: int = 3) -> GeneDrafts:
    return GeneDrafts.build(
        table_of(genes), grammar, FREQUENCIES[: len(genes)], width=width, vocab_size=CONFIG.vocab_size
    )


@pytest.fixture(scope="module")
def sampler(model: TinyModel) -> Sampler:
    return Sampler(model[0], stop_ids=(END,), vocab_size=len(PIECES), batch_size=15, mesh=one_device())


@pytest.mark.parametrize(("temperature", "free"), [(1.0, False), (0.0, False), (1.0, True)])
def test_same_answers_in_fewer_passes(
    model: TinyModel, prompts: list[NDArray], sampler: Sampler, temperature: float, free: bool
) -> None:
    """Token by token what plain decoding draws, over rings that drafts wrote and took back."""
    grammar = GeneGrammar.build(table_of(GENES), END, exactly=6)
    options: Any = dict(max_new_tokens=NEW, sampling=Sampling(temperature), seed=2, samples_per_prompt=3)
    options["grammar"] = None if free else grammar
    plain = sampler(model[1], prompts, **options)
    drafted = sampler(model[1], prompts, drafts=make_drafts(grammar, GENES), **options)
    for name in ("tokens", "lengths", "stopped"):
        np.testing.assert_array_equal(getattr(drafted, name), getattr(plain, name))
    np.testing.assert_allclose(drafted.logprobs, plain.logprobs, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(plain.passes, plain.lengths)
    assert (drafted.passes <= plain.passes).all()
    assert drafted.passes.sum() < plain.passes.sum() * (1.0 if free else 0.9)


def test_distribution_over_all_lists(model: TinyModel, prompts: list[NDArray], teacher: Teacher) -> None:
    """Frequencies of drafted answers at temperature 1 against probabilities from full passes under the mask."""
    genes, prompt, n = GENES[2:6], prompts[2], 1500
    lists = sorted(all_lists(genes, [2]))
    probabilities = []
    for answer in lists:
        logits = teacher(np.array([*prompt, *answer]))[len(prompt) - 1 : -1].astype(np.float64)
        total = 0.0
        for i, token in enumerate(answer):
            allowed = [x[i] for x in lists if x[:i] == answer[:i]]
            masked = np.where(np.isin(np.arange(logits.shape[1]), allowed), logits[i], -np.inf)
            total += distribution(masked, Sampling())[token]
        probabilities.append(np.exp(total))
    np.testing.assert_allclose(sum(probabilities), 1.0, atol=1e-5)
    grammar = GeneGrammar.build(table_of(genes), END, exactly=2)
    sampler = Sampler(model[0], stop_ids=(END,), batch_size=n, mesh=one_device())
    found = sampler(
        model[1], [prompt], max_new_tokens=12, samples_per_prompt=n, grammar=grammar, drafts=make_drafts(grammar, genes)
    )
    answers = [tuple(row[:end]) for row, end in zip(found.tokens.tolist(), found.lengths)]
    counts = np.array([answers.count(x) for x in lists])
    assert counts.sum() == n
    assert found.passes.sum() < 0.9 * found.lengths.sum()
    expected = np.array(probabilities) * n
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], max(expected[~common].sum(), 1e-9))
    keep = wanted > 1
    observed, wanted = observed[keep], wanted[keep]
    assert len(wanted) >= 4
    assert chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3


def test_drafts_are_the_most_frequent_completion() -> None:
    """From the frequencies by hand: the begun name, then the next, without genes used or in the draft."""
    import jax.numpy as jnp

    grammar = GeneGrammar.build(table_of(GENES), END)
    drafts = make_drafts(grammar, GENES, width=4)
    table, start = table_of(GENES), grammar.start(1)
    first = table.encode([2, 5])[:4]  # ABC, then CABC
    np.testing.assert_array_equal(drafts.propose(start)[0], first)
    walk, symbols = start, np.asarray(grammar.symbols).tolist()
    token = int(table.encode([1])[0])  # "▁AB": begun, ABC is likelier than AB
    _, walk = grammar.take(walk, jnp.array([symbols.index(token)]), jnp.array([True]))
    np.testing.assert_array_equal(drafts.propose(walk)[0], table.encode([2, 5])[1:5])
    used = walk._replace(used=walk.used.at[0, 2].set(True))
    np.testing.assert_array_equal(drafts.propose(used)[0], table.encode([1, 5, 6])[1:5])


def test_bad_drafts(model: TinyModel, prompts: list[NDArray], sampler: Sampler) -> None:
    grammar, other = (GeneGrammar.build(table_of(GENES), END, exactly=k) for k in (2, 3))
    with pytest.raises(ValueError, match="built with another grammar"):
        sampler(model[1], prompts, max_new_tokens=4, grammar=grammar, drafts=make_drafts(other, GENES))
    with pytest.raises(ValueError, match="the grammar's 7 genes, not 2"):
        make_drafts(grammar, GENES[:2])
