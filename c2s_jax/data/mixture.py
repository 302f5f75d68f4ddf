"""The mixture: which tasks in which shares, and what each block of the stream draws from it."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.contexts import Known, MissingData
from c2s_jax.data.corpus import Corpus
from c2s_jax.data.permute import generator
from c2s_jax.data.settings import MixtureTask
from c2s_jax.data.task_stream import TaskStream

__all__ = ["Block", "Mixture", "MixtureTask"]


@dataclasses.dataclass(frozen=True)
class Block:
    """Examples of a block, K of them in random order: task number, and number within that task."""

    task: NDArray[np.int64]
    number: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.task)

    def part(self, start: int, stop: int) -> "Block":
        """Some of the examples."""
        return Block(self.task[start:stop], self.number[start:stop])

    def followed_by(self, other: "Block") -> "Block":
        """These examples, then others."""
        return Block(np.concatenate([self.task, other.task]), np.concatenate([self.number, other.number]))


class Mixture:
    """Deals out examples block by block; block b is a pure function of (seed, b).

    Parameters
    ----------
    tasks
        The tasks and their settings.
    corpus, split
        What they are asked about.
    seed
        Which stream.
    missing
        What becomes of a task that the split has no data for: an ``"error"``, or no examples (``"skip"``; ``lacking``
        says why).
    """

    def __init__(
        self,
        tasks: Sequence[MixtureTask],
        corpus: Corpus,
        split: str,
        *,
        seed: int,
        missing: Literal["error", "skip"] = "error",
    ):
        if not tasks:
            raise ValueError("the mixture has no tasks")
        self.tasks, self.seed = tuple(tasks), seed
        self.lacking: dict[str, str] = {}
        self.streams: list[TaskStream | None] = []
        known = Known(corpus, split)
        for number, task in enumerate(tasks):
            try:
                self.streams.append(TaskStream(task, known, number=number, seed=seed))
            except MissingData as error:
                if missing == "error":
                    raise
                self.lacking[task.task] = str(error)
                self.streams.append(None)
        if not any(self.streams):
            raise MissingData("the corpus has no data for any task:\n  " + "\n  ".join(self.lacking.values()))
        weights = np.array([t.weight if s else 0.0 for t, s in zip(tasks, self.streams)])
        self.shares = weights / weights.sum()

    def block(self, number: int, size: int) -> Block:
        """About ``size`` examples of a block, each task in its exact share, and once at least."""
        counts = np.maximum(self.shares > 0, np.round(size * self.shares)).astype(np.int64)
        task = np.repeat(np.arange(len(counts)), counts)
        within = np.concatenate([np.arange(number * n, (number + 1) * n) for n in counts.tolist()])
        order = generator(self.seed, number).permutation(len(task))
        return Block(task[order], within[order])
