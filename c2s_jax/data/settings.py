"""What can be set for one task of a mixture."""

import dataclasses
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.permute import uniform
from c2s_jax.tasks import TASKS

Distribution = Literal["log-uniform", "uniform"]
GeneOrder = Literal["expression", "tfidf", "binned"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("log-uniform", "uniform")
GENE_ORDERS: tuple[GeneOrder, ...] = ("expression", "tfidf", "binned")


class Choice(IntEnum):
    """What is drawn with an example's key: each choice has a number of its own, so that none depends on another."""

    GENES = 1
    CELLS = 2
    TEMPLATE = 3
    OTHERS = 4
    ANCHOR = 5
    ANSWER = 6
    CONTROL = 7
    TEXT = 8
    DROPOUT = 9
    DROPPED = 10
    TIES = 11
    JITTER = 12


@dataclasses.dataclass(frozen=True)
class MixtureTask:
    """One task's part in the mixture.

    Attributes
    ----------
    task
        Name in ``c2s_jax.tasks.TASKS``.
    weight
        Share of examples, relative to the other tasks' weights.
    temperature
        How data sets share a task: in proportion to (examples in it) ** (1 / temperature). At 1 every cell comes
        once an epoch; the higher, the more evenly data sets are drawn.
    loss
        ``"all"`` tokens (pretraining) or ``"response"`` only (SFT).
    response_weight
        Loss weight of response tokens; the prompt's is 1 (or 0 when ``loss="response"``).
    min_genes, max_genes
        Sentences are cut to k genes, k drawn from this range, the same for all cells of an example; ``max_genes``
        None leaves them whole.
    genes_drawn
        How k is distributed over its range: ``"log-uniform"`` or ``"uniform"``.
    min_cells, max_cells
        Range of the number of cells an example, for tasks with several; 0 stands for the task's own.
    cells_drawn
        How the number of cells is distributed: ``"uniform"`` or ``"log-uniform"``.
    gene_order
        ``"expression"``; ``"tfidf"``: expression times the logarithm of how rare a gene is among training cells;
        ``"binned"``: at random among genes whose expression agrees within a factor of two.
    prompts
        Source of templates, see ``load_templates``.
    interactions
        Whether to use the templates that tell known interactions of the cells' genes, or those that do not.
    max_interactions
        Most interactions told.
    """

    task: str
    weight: float = 1.0
    temperature: float = 1.0
    loss: Literal["all", "response"] = "all"
    response_weight: float = 1.0
    min_genes: int = 1
    max_genes: int | None = None
    genes_drawn: Distribution = "log-uniform"
    min_cells: int = 0
    max_cells: int = 0
    cells_drawn: Distribution = "uniform"
    gene_order: GeneOrder = "expression"
    prompts: str = "c2s_jax"
    interactions: bool = False
    max_interactions: int = 20

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"mixture: unknown task {self.task!r}; known: {', '.join(TASKS)}")
        fewest, most = TASKS[self.task].cells
        object.__setattr__(self, "min_cells", self.min_cells or min(fewest, self.max_cells or fewest))
        object.__setattr__(self, "max_cells", self.max_cells or max(most, self.min_cells))
        one_of = {"loss": ("all", "response"), "genes_drawn": DISTRIBUTIONS, "cells_drawn": DISTRIBUTIONS}
        for name, allowed in (one_of | {"gene_order": GENE_ORDERS}).items():
            if getattr(self, name) not in allowed:
                wanted = " or ".join(f'"{value}"' for value in allowed)
                raise ValueError(f"mixture, {self.task}: {name}={getattr(self, name)!r} must be {wanted}")
        if self.weight <= 0 or self.response_weight <= 0:
            raise ValueError(f"mixture, {self.task}: weights must be positive")
        if self.temperature <= 0:
            raise ValueError(f"mixture, {self.task}: temperature={self.temperature} must be positive")
        if self.min_genes < 1 or (self.max_genes is not None and self.max_genes < self.min_genes):
            raise ValueError(f"mixture, {self.task}: need 1 <= min_genes <= max_genes")
        if self.max_interactions < 1:
            raise ValueError(f"mixture, {self.task}: max_interactions={self.max_interactions} must be positive")
        self._check_cells(fewest, most)

    def _check_cells(self, fewest: int, most: int) -> None:
        if not 1 <= self.min_cells <= self.max_cells:
            raise ValueError(f"mixture, {self.task}: need 1 <= min_cells <= max_cells")
        if most == 1 and self.max_cells > 1:
            raise ValueError(f"mixture, {self.task}: this task shows the cells it needs; leave min_cells, max_cells")
        if self.min_cells < min(fewest, 2):
            raise ValueError(f"mixture, {self.task}: min_cells={self.min_cells}, but it takes two cells at least")

    def n_genes(self, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Most genes a list of the examples with these keys."""
        if self.max_genes is None:
            return np.full(len(key), np.iinfo(np.int64).max)
        return _drawn(self.genes_drawn, self.min_genes, self.max_genes, uniform(key, Choice.GENES))

    def n_cells(self, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Cells wanted in the examples with these keys."""
        return _drawn(self.cells_drawn, self.min_cells, self.max_cells, uniform(key, Choice.CELLS))


def _drawn(distribution: Distribution, low: int, high: int, u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Integers from ``low`` to ``high``, both included."""
    if distribution == "uniform":
        return low + (u * (high - low + 1)).astype(np.int64)
    a, b = np.log(low), np.log(high + 1)
    return np.clip(np.exp(a + u * (b - a)).astype(np.int64), low, high)
