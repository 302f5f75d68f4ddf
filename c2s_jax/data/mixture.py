"""The mixture: which tasks, in which shares, asked how; and what each block of the stream draws from it."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.corpus import CellSource
from c2s_jax.data.permute import generator, permuted
from c2s_jax.tasks import TASKS, Template, load_templates


@dataclasses.dataclass(frozen=True)
class MixtureTask:
    """One task's part in the mixture.

    Attributes
    ----------
    task
        Name in ``c2s_jax.tasks.TASKS``.
    weight
        Share of examples, relative to the other tasks' weights.
    loss
        ``"all"`` tokens (pretraining) or ``"response"`` only (SFT).
    response_weight
        Loss weight of response tokens; the prompt's is 1 (or 0 when ``loss="response"``).
    min_genes, max_genes
        Sentences are cut to k genes, k drawn log-uniformly from this range; ``max_genes`` None leaves them whole.
    prompts
        Source of templates, see ``load_templates``.
    """

    task: str
    weight: float = 1.0
    loss: Literal["all", "response"] = "all"
    response_weight: float = 1.0
    min_genes: int = 1
    max_genes: int | None = None
    prompts: str = "c2s_jax"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"mixture: unknown task {self.task!r}; known: {', '.join(TASKS)}")
        if self.loss not in ("all", "response"):
            raise ValueError(f'mixture, {self.task}: loss={self.loss!r} must be "all" or "response"')
        if self.weight <= 0 or self.response_weight <= 0:
            raise ValueError(f"mixture, {self.task}: weights must be positive")
        if self.min_genes < 1 or (self.max_genes is not None and self.max_genes < self.min_genes):
            raise ValueError(f"mixture, {self.task}: need 1 <= min_genes <= max_genes")


@dataclasses.dataclass(frozen=True)
class Draw:
    """One block's examples, K of them: task number, cell, template number and number of genes kept."""

    task: NDArray[np.int64]
    cell: NDArray[np.int64]
    template: NDArray[np.int64]
    genes_kept: NDArray[np.int64]


class Mixture:
    """Draws examples block by block; block b is a pure function of (seed, b)."""

    def __init__(self, tasks: Sequence[MixtureTask], cells: CellSource, *, seed: int):
        if not tasks:
            raise ValueError("the mixture has no tasks")
        self.tasks, self.seed = tuple(tasks), seed
        self.templates: list[tuple[Template, ...]] = [load_templates(t.task, t.prompts) for t in tasks]
        self._eligible = [self._cells_with_fields(t, cells) for t in tasks]

    def draw(self, block: int, size: int) -> Draw:
        """About ``size`` examples of block ``block``, in random order, each task in its exact share."""
        rng = generator(self.seed, block)
        weights = np.array([t.weight for t in self.tasks])
        counts = np.maximum(1, np.round(size * weights / weights.sum())).astype(np.int64)
        parts = [self._draw_task(i, block, int(n), rng) for i, n in enumerate(counts)]
        order = rng.permutation(counts.sum())
        return Draw(*(np.concatenate(column)[order] for column in zip(*parts)))

    def _draw_task(self, index: int, block: int, n: int, rng: np.random.Generator) -> tuple[NDArray, ...]:
        task, eligible = self.tasks[index], self._eligible[index]
        place = np.arange(block * n, (block + 1) * n)
        cell = eligible[permuted(place, len(eligible), key=self.seed * 1009 + index)]
        template = rng.integers(len(self.templates[index]), size=n)
        most = np.iinfo(np.int64).max
        kept = np.full(n, most)
        if task.max_genes is not None:
            low, high = np.log(task.min_genes), np.log(task.max_genes + 1)
            kept = np.minimum(np.exp(rng.uniform(low, high, n)).astype(np.int64), task.max_genes)
        return np.full(n, index), cell, template, kept

    @staticmethod
    def _cells_with_fields(task: MixtureTask, cells: CellSource) -> NDArray[np.int64]:
        keep = np.ones(len(cells), bool)
        for field in TASKS[task.task].fields:
            keep &= cells.fields(field) != ""
        if not keep.any():
            raise ValueError(
                f"mixture, {task.task}: no cell of the corpus has {' and '.join(TASKS[task.task].fields)}; "
                "map an obs column to it when building the corpus, or drop the task"
            )
        return np.flatnonzero(keep)
