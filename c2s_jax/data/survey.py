"""What the examples of a mixture are like, measured on the first of each task before a stream begins."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.mixture import Block, Mixture
from c2s_jax.data.packing import plan_rows
from c2s_jax.data.writer import Writer

MEASURED = 64  # examples a task that are written at least,
MEASURED_LISTS = 2_048  # and about so many sentences: rows are as full as tokens a gene are known
ESTIMATED = 16_384  # examples of the mixture whose length is estimated
TRIED = 8  # packings of these that are tried
PLACED = 0.98  # share of the examples that should find room; the rest makes rows full
MOST_DEALT = 1.004  # tokens are only estimated
FITTING = 0.5  # share of examples that must fit into a row with one gene; those that do not are left out


@dataclasses.dataclass(frozen=True)
class TaskSurvey:
    """One task's examples.

    Attributes
    ----------
    task
        Its name.
    share
        Of the examples of the mixture.
    examples
        There are so many in an epoch.
    measured
        The first so many were written for what follows.
    tokens
        Mean length of those that fit.
    shortened, left_out
        Share of examples that lose genes so as to fit into a row, and of those that do not fit even so.
    shortest, longest
        Tokens, where nothing is cut but sentences to a single gene.
    tokens_per_gene, other_tokens
        Mean over the examples; ``other_tokens`` are those that no estimate from columns knows of.
    """

    task: str
    share: float
    examples: int
    measured: int
    tokens: float
    shortened: float
    left_out: float
    shortest: int
    longest: int
    tokens_per_gene: float
    other_tokens: float

    def __str__(self) -> str:
        return (
            f"{self.task}: {self.share:.1%} of examples, {self.examples:,} an epoch, {self.tokens:,.0f} tokens each, "
            f"shortened {self.shortened:.1%}, left out {self.left_out:.1%}"
        )


class Survey:
    """Measures of all tasks of a mixture.

    Parameters
    ----------
    mixture, writers
        What is measured.
    shape
        Rows that are packed together, and their tokens.

    Attributes
    ----------
    tasks
        What the tasks' examples are like; None for tasks without any.
    dealt
        Tokens to deal to such rows so that nearly all examples find room, relative to what the rows hold.
    mean_tokens
        Of an example in a row.

    Raises
    ------
    ValueError
        If most examples cannot fit into a row.
    """

    def __init__(self, mixture: Mixture, writers: Sequence[Writer | None], shape: tuple[int, int]):
        seq_len = shape[1]
        self._writers, self._seq_len = writers, seq_len
        self.tasks: list[TaskSurvey | None] = [
            None if writer is None else _measure(writer, task.task, float(share), seq_len)
            for writer, task, share in zip(writers, mixture.tasks, mixture.shares)
        ]
        found = [task for task in self.tasks if task is not None]
        left_out = sum(task.share * task.left_out for task in found)
        if 1 - left_out < FITTING:
            who = f"{left_out:.0%} of the examples are" if left_out < 1 else "every example is"
            raise ValueError(
                f"{who} longer than data.seq_len={seq_len}, even with a single gene (shortest: "
                f"{min(task.shortest for task in found)} tokens, longest: {max(task.longest for task in found)}); "
                "raise seq_len"
            )
        lengths = self.tokens(mixture.block(0, ESTIMATED))
        self.mean_tokens, self.dealt = float(lengths.mean()), _dealt(lengths, shape)

    def tokens(self, block: Block) -> NDArray[np.int64]:
        """Expected tokens in rows of the examples of a block, int64 [K]; 0 for those that are left out."""
        out = np.zeros(len(block), np.int64)
        for number, (task, writer) in enumerate(zip(self.tasks, self._writers)):
            of_task = np.flatnonzero(block.task == number)
            if task is None or writer is None or not of_task.size:
                continue
            texts, genes = writer.estimate(block.number[of_task])
            expected = texts + np.round(task.tokens_per_gene * genes + task.other_tokens).astype(np.int64)
            fits = texts + task.tokens_per_gene <= self._seq_len
            out[of_task] = np.where(fits, np.minimum(expected, self._seq_len), 0)
        return out


def _dealt(lengths: NDArray[np.int64], shape: tuple[int, int]) -> float:
    """The largest share of what rows hold that can be dealt to them with few examples left over, by bisection."""
    low, high = 0.0, MOST_DEALT
    ends = np.cumsum(lengths)
    for _ in range(8):
        share = (low + high) / 2
        size = share * shape[0] * shape[1]
        cuts = np.searchsorted(ends, size * np.arange(1 + max(1, min(TRIED, int(ends[-1] // size)))), side="right")
        placed = sum(np.count_nonzero(plan_rows(part, *shape) >= 0) for part in np.split(lengths, cuts)[1:-1])
        low, high = (share, high) if placed >= PLACED * cuts[-1] else (low, share)
    return low or high


def _measure(writer: Writer, name: str, share: float, seq_len: int) -> TaskSurvey:
    lists = len(writer.stream.draw(np.arange(MEASURED)).lists)
    which = np.arange(max(MEASURED, MEASURED * MEASURED_LISTS // max(lists, 1)))
    written = writer.write(which)
    lengths = written.examples.lengths
    fits = lengths <= seq_len
    texts, _ = writer.estimate(which)
    n_genes = written.genes.sum()
    return TaskSurvey(
        task=name,
        share=share,
        examples=len(writer.stream),
        measured=len(which),
        tokens=float(lengths[fits].mean()) if fits.any() else 0.0,
        shortened=float(written.shortened[fits].mean()) if fits.any() else 0.0,
        left_out=float(np.mean(~fits)),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        tokens_per_gene=float((lengths - written.text_tokens).sum() / max(n_genes, 1)),
        other_tokens=float(np.mean(written.text_tokens - texts)),
    )
