"""Texts that end answers: the automaton against ``in``, and the samplers against answers that ran on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from c2s_jax.generation import Sampler, SlotSampler, StopStrings
from tests.generation.tiny import CONFIG, TinyModel, one_device

PIECES = ["", "a", "b", "ab", "ba", "aab", "c", "abcab", " ", "\ufffd", "bb", "cc"]
NEW = 24


class Toy:
    """Tokens that are pieces in a row."""

    vocab_size = len(PIECES)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(PIECES[i % len(PIECES)] for i in ids)


@given(
    strings=st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4),
    tokens=st.lists(st.integers(0, len(PIECES) - 1), max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_it_ends_with_the_token_that_completes_a_string(strings: list[str], tokens: list[int]) -> None:
    stops, state = StopStrings.build(Toy(), strings), np.zeros(1, np.int32)
    moves = np.asarray(stops.moves)
    for i, token in enumerate(tokens):
        state = moves[state, token]
        text = Toy().decode(tokens[: i + 1])
        assert bool(stops.ended(state)[0]) == any(s in text for s in strings), text


@pytest.mark.parametrize("kind", ["batches", "slots"])
def test_rows_end_there(model: TinyModel, prompts: list[NDArray], kind: str) -> None:
    """At the first token whose text completes a string, with the same tokens up to it; the other rows run on."""

    class Wide(Toy):
        vocab_size = CONFIG.vocab_size

    sampler: Any = Sampler(model[0], stop_ids=(), batch_size=3, mesh=one_device())
    sampler = SlotSampler(sampler, passes=5, admit=2) if kind == "slots" else sampler
    free = sampler(model[1], prompts, max_new_tokens=NEW, seed=4)
    # What two of the answers hold in their first half, over the borders of tokens.
    halves = [Toy().decode(tokens[: NEW // 2]).replace("\ufffd", " ") for tokens in free.tokens[[0, 2]]]
    strings = tuple(half[-7:-1] for half in halves)
    found = sampler(model[1], prompts, max_new_tokens=NEW, seed=4, stop_strings=StopStrings.build(Wide(), strings))
    ends = []
    for tokens in free.tokens:
        texts = [Toy().decode(tokens[: i + 1]) for i in range(NEW)]
        ends.append(next((i + 1 for i, text in enumerate(texts) if any(s in text for s in strings)), NEW))
    assert min(ends) < NEW // 2, "no string came"
    assert max(ends) == NEW, "a row should run on"
    np.testing.assert_array_equal(found.lengths, ends)
    np.testing.assert_array_equal(found.passes, ends)
    assert not found.stopped.any()
    for row, wanted, end in zip(found.tokens, free.tokens, ends):
        np.testing.assert_array_equal(row[:end], wanted[:end])
        assert (row[end:] == 0).all()
    assert found.texts(Toy().decode, strings) == free.texts(Toy().decode, strings)


@pytest.mark.parametrize("strings", [[], ["a", ""], "ab"])
def test_bad_strings(strings: Any) -> None:
    with pytest.raises(ValueError, match="list of texts, none empty"):
        StopStrings.build(Toy(), strings)
