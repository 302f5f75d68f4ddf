"""Texts that end an answer, followed on the device token by token."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int
from numpy.typing import NDArray

BROKEN = "\ufffd"  # what a tokenizer writes for a part of a character


@partial(jax.tree_util.register_dataclass, data_fields=["moves"], meta_fields=["strings"])
@dataclasses.dataclass(frozen=True)
class StopStrings:
    """Ends answers at texts; for ``Sampler(..., stop_strings=...)``. Build with `StopStrings.build`.

    An automaton (Aho and Corasick 1975, doi:10.1145/360825.360855) reads the characters of every token drawn; a string
    may begin and end anywhere within tokens. Answers hold the whole of the last token: ``Samples.texts`` cuts there.

    Attributes
    ----------
    strings
        What ends an answer.
    moves
        State after each token [S, V]; the last of the S states says that a string was completed.
    """

    strings: tuple[str, ...]
    moves: Int[Array, "S V"]

    @classmethod
    def build(cls, tokenizer: Any, strings: Sequence[str]) -> "StopStrings":
        """Make the automaton of a tokenizer, whose texts are those of its tokens in a row.

        A character that the tokenizer splits into bytes is not recognised; strings that hold one are found on the host.

        Raises
        ------
        ValueError
            If there are no strings, or one is empty.
        """
        if isinstance(strings, str) or not strings or "" in strings:
            raise ValueError(f"stop_strings must be a list of texts, none empty, not {strings!r}")
        letters = {letter: 1 + i for i, letter in enumerate(sorted(set("".join(strings)) - {BROKEN}))}
        pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
        codes = np.full((len(pieces), max(map(len, pieces))), -1, np.int32)
        for row, piece in zip(codes, pieces):
            row[: len(piece)] = [letters.get(letter, 0) for letter in piece]
        steps = _automaton([[letters.get(letter, 0) for letter in string] for string in strings], 1 + len(letters))
        moves = np.repeat(np.arange(len(steps), dtype=np.int32)[:, None], len(pieces), axis=1)
        for column in codes.T:
            moves = np.where(column >= 0, steps[moves, column], moves)
        return cls(tuple(strings), jnp.asarray(moves))

    def step(self, state: Int[Array, "B"], token: Int[Array, "B"]) -> Int[Array, "B"]:
        """The state after one more token a row; the first is 0."""
        return self.moves.at[state, token].get(mode="clip")

    def ended(self, state: Int[Array, "B"]) -> Bool[Array, "B"]:
        """Rows in which a string was completed."""
        return state == self.moves.shape[0] - 1


def _automaton(words: Sequence[Sequence[int]], letters: int) -> NDArray[np.int32]:
    """Next state by state and letter [S, letters]; the last state is that of a completed word, and stays."""
    tree: list[dict[int, int]] = [{}]
    complete: set[int] = set()
    for word in words:
        node = 0
        for letter in word:
            if letter not in tree[node]:
                tree[node][letter] = len(tree)
                tree.append({})
            node = tree[node][letter]
        complete.add(node)
    end = len(tree)
    steps = np.zeros((end + 1, letters), np.int32)
    steps[end] = end
    queue, fallback = [0], {0: 0}
    for node in queue:  # by depth: what a node falls back to is done before it
        for letter in range(letters):
            elsewhere = int(steps[fallback[node], letter]) if node else 0
            child = tree[node].get(letter)
            if child is None or elsewhere == end:
                steps[node, letter] = elsewhere
                continue
            fallback[child] = elsewhere
            queue.append(child)
            steps[node, letter] = end if child in complete else child
    return steps
