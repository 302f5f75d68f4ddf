"""What a reward is given, and what it gives."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells import RepairReport, repair_sentence
from c2s_jax.data import Corpus
from c2s_jax.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class World:
    """What a reward may look up, the same throughout a run.

    Attributes
    ----------
    corpus, split
        Where the prompts come from.
    seed
        Of the run.
    """

    corpus: Corpus
    split: str = "train"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Completions:
    """N = P · G completions of a phase, those of a prompt one after the other.

    Attributes
    ----------
    world
        What can be looked up.
    texts
        Completions without the token that ends them.
    references
        What the data hold in their place; the same for all of a group.
    tasks
        Name of each completion's task.
    cells
        The cell of the split that each prompt is about, int64 [N].
    numbers
        Number of each completion in the run, int64 [N]: what is random about its reward hangs on it.
    lengths
        Tokens, int [N].
    truncated
        Whether the limit of tokens ended it, bool [N].
    num_generations
        G.
    """

    world: World
    texts: Sequence[str]
    references: Sequence[str]
    tasks: Sequence[str]
    cells: NDArray[np.int64]
    numbers: NDArray[np.int64]
    lengths: NDArray[np.integer]
    truncated: NDArray[np.bool_]
    num_generations: int

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def answers(self) -> list[str]:
        """Completions as their tasks read them: for tasks with one answer its text."""
        return [_plain(TASKS[task].parse(text)) for task, text in zip(self.tasks, self.texts)]

    @cached_property
    def wanted(self) -> list[str]:
        """References, read the same way."""
        return [_plain(TASKS[task].parse(text)) for task, text in zip(self.tasks, self.references)]

    @cached_property
    def repaired(self) -> list[tuple[NDArray[np.int32], RepairReport]]:
        """Each completion as a cell sentence: ids of its distinct genes in order, and what was wrong with it."""
        genes = self.world.corpus.genes
        found = (repair_sentence(text, genes) for text in self.answers)
        return [(genes.ids(names), report) for names, report in found]

    @property
    def genes(self) -> list[NDArray[np.int32]]:
        """Ids of each completion's genes, in order."""
        return [ids for ids, _ in self.repaired]

    @cached_property
    def wanted_genes(self) -> list[NDArray[np.int32]]:
        """Ids of each reference's genes, in order."""
        genes = self.world.corpus.genes
        known = {text: genes.ids(repair_sentence(text, genes)[0]) for text in set(self.wanted)}
        return [known[text] for text in self.wanted]

    def field(self, name: str) -> NDArray[np.str_]:
        """A field of the cells that the prompts are about, e.g. their perturbation, str [N]."""
        return self.world.corpus.cells(self.world.split).fields(name)[self.cells]


class Reward(Protocol):
    """A function of completions."""

    def __call__(self, completions: Completions, /) -> NDArray[np.floating]:
        """The reward of each completion, [N]; higher is better."""


MakeReward = Callable[..., Reward]
"""Called once with the world and the reward's settings."""


def _plain(answer: object) -> str:
    """Answers of several parts, one after the other."""
    return answer if isinstance(answer, str) else " ".join(map(str, answer))  # type: ignore[call-overload]
