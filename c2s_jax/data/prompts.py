"""Prompts to answer: prompt n, with the response that the data hold, is a function of an integer."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.augment import Augmentation
from c2s_jax.data.corpus import Corpus
from c2s_jax.data.formatting import Formatter
from c2s_jax.data.mixture import Block, Mixture, MixtureTask
from c2s_jax.data.writer import task_writers

BLOCK = 64  # prompts over which tasks keep their shares; within one, prompts of two epochs may mix


@dataclasses.dataclass(frozen=True)
class Prompts:
    """N prompts.

    Attributes
    ----------
    tokens
        Token ids of each, the beginning of a sequence included.
    references
        Token ids of the response that the data hold, without the end of the sequence.
    tasks
        Name of each prompt's task.
    cells
        The cell of the split whose fields the prompt or its response tells, int64 [N].
    """

    tokens: list[NDArray[np.int32]]
    references: list[NDArray[np.int32]]
    tasks: list[str]
    cells: NDArray[np.int64]


class PromptStream:
    """Endless prompts of a mixture: those from number n on depend on the corpus, the settings and n alone.

    Parameters
    ----------
    corpus, split
        What is asked about.
    tasks
        The mixture.
    formatter
        Tokenizer and gene table.
    seq_len
        Most tokens of a prompt and its reference response together; longer ones lose genes, evenly over their cells.
    augmentation, seed, missing
        As in ``PackedRows``.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        tasks: Sequence[MixtureTask],
        formatter: Formatter,
        *,
        seq_len: int,
        augmentation: Augmentation = Augmentation(),
        seed: int = 0,
        missing: Literal["error", "skip"] = "error",
    ):
        self.mixture = Mixture(tasks, corpus, split, seed=seed, missing=missing)
        self._writers = task_writers(self.mixture, corpus, formatter, seq_len, augmentation)
        self._seq_len = seq_len
        self._block_size = len(self.mixture.block(0, BLOCK))

    def take(self, start: int, count: int) -> Prompts:
        """Prompts ``start`` to ``start + count``.

        Raises
        ------
        ValueError
            If a prompt and its response do not fit into ``seq_len`` tokens even with one gene of each list.
        """
        chosen = self._examples(start, count)
        tokens: list[NDArray] = [np.empty(0, np.int32)] * count
        references, cells = list(tokens), np.zeros(count, np.int64)
        for number in np.unique(chosen.task).tolist():
            here, writer = np.flatnonzero(chosen.task == number), self._writers[number]
            assert writer is not None
            written = writer.write(chosen.number[here]).examples
            cells[here] = writer.stream.anchors(chosen.number[here])
            if (long := np.flatnonzero(written.lengths > self._seq_len)).size:
                raise ValueError(
                    f"prompt {start + here[long[0]]} ({self.mixture.tasks[number].task}) and its response take "
                    f"{written.lengths[long[0]]} tokens with one gene of each list; raise seq_len={self._seq_len}"
                )
            bounds = written.indptr
            for place, i in enumerate(here.tolist()):
                example = slice(bounds[place], bounds[place + 1])
                answer = written.is_response[example]
                tokens[i], references[i] = written.tokens[example][~answer], written.tokens[example][answer][:-1]
        names = [self.mixture.tasks[number].task for number in chosen.task.tolist()]
        return Prompts(tokens, references, names, cells)

    def _examples(self, start: int, count: int) -> Block:
        """Examples ``start`` to ``start + count`` of the blocks one after the other."""
        size = self._block_size
        found = [
            self.mixture.block(number, BLOCK).part(
                max(0, start - number * size), min(size, start + count - number * size)
            )
            for number in range(start // size, (start + count - 1) // size + 1)
        ]
        whole = found[0]
        for part in found[1:]:
            whole = whole.followed_by(part)
        return whole
