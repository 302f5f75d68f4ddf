"""Rows that are replaced when they finish: the answers of plain batches, in fewer passes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.generation import GeneDrafts, GeneGrammar, Sampler, SlotSampler
from tests.generation.tiny import CONFIG, TinyModel, one_device
from tests.generation.toy_names import END, table_of

GENES = ["A", "AB", "ABC", "B", "BC", "CABC", "CAAC"]


def test_same_answers_as_in_batches(model: TinyModel, prompts: list[NDArray]) -> None:
    """Eleven prompts of mixed lengths and answers of mixed lengths through three rows."""
    queue, numbers = [*prompts, *prompts, prompts[0]], [1, 5, 2, 1, 1, 4, 1, 1, 5, 1, 2]
    sampler = Sampler(model[0], stop_ids=(END,), batch_size=3, mesh=one_device())
    grammar = GeneGrammar.build(table_of(GENES), END, exactly=1)
    drafts = GeneDrafts.build(table_of(GENES), grammar, range(len(GENES)), width=2, vocab_size=CONFIG.vocab_size)
    options: Any = dict(max_new_tokens=20, seed=4, grammar=grammar.with_genes(numbers), drafts=drafts)
    done: list[int] = []
    found = SlotSampler(sampler, passes=3, admit=2)(model[1], queue, progress=done.append, **options)
    wanted = sampler(model[1], queue, **options)
    assert len(set(wanted.lengths)) > 3
    for name in ("tokens", "lengths", "stopped", "passes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_allclose(found.logprobs, wanted.logprobs, rtol=0, atol=1e-4)
    assert sum(done) == len(queue)
