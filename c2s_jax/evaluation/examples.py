"""Held-out examples of a task as the data have them, to be asked as they are or scrambled."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.data import Augmentation, Mixture, MixtureTask
from c2s_jax.data.contexts import MissingData
from c2s_jax.data.ragged import offsets, positions, take_rows
from c2s_jax.data.task_stream import Draw
from c2s_jax.data.writer import Writer, task_writers
from c2s_jax.evaluation.context import Context, Sentences
from c2s_jax.generation import Sampling
from c2s_jax.tasks import TASKS

AT_ONCE = 256  # examples whose cells are read together


class Examples:
    """The first examples of one task of a split, each unit (cell, sample, cluster, question) once.

    They depend on the corpus, the task's settings and the seed alone. Nothing is augmented.

    Parameters
    ----------
    context
        Corpus and formatter, and the model that is asked.
    split
        Whose cells.
    task
        Which, and how its examples are made.
    n
        How many; fewer where the split has fewer units.

    Raises
    ------
    MissingData
        If the split has nothing to ask about.
    """

    def __init__(self, context: Context, split: str, task: MixtureTask, n: int | None, *, seed: int = 0):
        self.context, self.task = context, task
        mixture = Mixture([task], context.corpus, split, seed=seed)
        (writer,) = task_writers(mixture, context.corpus, context.formatter, context.seq_len, Augmentation())
        assert writer is not None
        self.writer: Writer = writer
        units = len(writer.stream)
        self.numbers = np.arange(units if n is None else min(n, units))
        self.draw: Draw = writer.stream.draw(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def tokens(self) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
        """Prompts, and responses with the end token, as token ids."""
        return self._written(self.draw)

    @cached_property
    def references(self) -> list[str]:
        """The responses that the data hold."""
        return [self.context.formatter.tokenizer.decode(r[:-1].tolist()) for r in self.tokens[1]]

    @cached_property
    def anchors(self) -> NDArray[np.int64]:
        """The cell whose fields are told, of each example."""
        return self.writer.stream.anchors(self.numbers)

    def values(self, field: str) -> list[str]:
        """The text of a field in each example."""
        texts = self.draw.draft.texts[field]
        return [texts.value(code) for code in texts.codes.tolist()]

    def sentences(self, place: int) -> Sentences:
        """One gene list of each example: 0 the first, -1 the last; cut to the task's ``max_genes``."""
        records = self.draw.lists[self._list(place)]
        block = self.writer.stream.context.source.take(records)
        kept = np.minimum(np.diff(block.indptr), self.task.max_genes or np.iinfo(np.int64).max)
        return Sentences(block.genes[positions(block.indptr[:-1], kept)], offsets(kept))

    def expression(self, place: int | None = None) -> NDArray[np.float32]:
        """Expression [N, G] of one list of each example (0 first, -1 last); None: mean of the others."""
        source, n_genes = self.writer.stream.context.source, len(self.context.corpus.genes)
        if place is not None:
            return source.take(self.draw.lists[self._list(place)]).matrix(n_genes).toarray()
        bounds = self.draw.draft.indptr
        out = np.zeros((len(self), n_genes), np.float32)
        for start in range(0, len(self), AT_ONCE):
            end = min(start + AT_ONCE, len(self))
            counts = np.diff(bounds[start : end + 1]) - 1
            others = positions(bounds[start:end] + 1, counts)
            cells = source.take(self.draw.lists[others]).matrix(n_genes)
            ones = np.ones(len(others), np.float32)
            of = sparse.csr_matrix((ones, np.arange(len(others)), offsets(counts)), (end - start, len(others)))
            out[start:end] = (of @ cells).toarray() / np.maximum(counts, 1)[:, None]
        return out

    def _list(self, place: int) -> NDArray[np.int64]:
        bounds = self.draw.draft.indptr
        return bounds[:-1] if place == 0 else bounds[1:] - 1

    def with_shuffled_lists(self, rng: np.random.Generator, *, keep_first: bool = False) -> Draw:
        """The same with gene lists dealt out anew among examples; ``keep_first`` deals only those after the first."""
        at = np.arange(len(self.draw.lists))
        moved = np.setdiff1d(at, self.draw.draft.indptr[:-1]) if keep_first else at
        at[moved] = rng.permutation(moved)
        return dataclasses.replace(self.draw, lists=self.draw.lists[at])

    def with_lists_of(self, others: NDArray[np.int64]) -> Draw:
        """The same with the gene lists, however many, of another of the examples in the place of each one's own."""
        draw, draft = self.draw, self.draw.draft
        at, indptr = take_rows(np.arange(len(draw.lists)), draft.indptr, others)
        draft = draft.replace_texts(num_cells=draft.texts["num_cells"].select(others))
        draft = dataclasses.replace(draft, indptr=indptr, cells=draft.cells[others])
        return Draw(draft, draw.lists[at], draw.key[at], draw.most[at])

    def with_text_of(self, field: str, others: NDArray[np.int64]) -> Draw:
        """The same with one field's text of another of the examples in the place of each one's own."""
        draft = self.draw.draft
        return dataclasses.replace(self.draw, draft=draft.replace_texts(**{field: draft.texts[field].select(others)}))

    def ask(self, *, sampling: Sampling, max_new_tokens: int, draw: Draw | None = None, seed: int = 0) -> list[str]:
        """What the model answers, parsed as the task's answers are; ``draw`` takes the place of the examples."""
        prompts, _ = self.tokens if draw is None else self._written(draw)
        samples = self.context.answer(
            prompts, what=self.task.task, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed
        )
        return [TASKS[self.task.task].parse(t) for t in samples.texts(self.context.formatter.tokenizer.decode)]

    def _written(self, draw: Draw) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
        written = self.writer.write_draw(draw).examples
        if (long := np.flatnonzero(written.lengths > self.context.seq_len)).size:
            raise ValueError(
                f"example {long[0]} of {self.task.task} takes {written.lengths[long[0]]} tokens with one gene of each "
                f"list; raise data.seq_len={self.context.seq_len}"
            )
        prompts, responses = [], []
        for start, end in zip(written.indptr[:-1], written.indptr[1:]):
            tokens, answer = written.tokens[start:end], written.is_response[start:end]
            prompts.append(tokens[~answer])
            responses.append(tokens[answer])
        return prompts, responses


def examples_of(
    context: Context, split: str, task: str, *, max_examples: int | None, seed: int = 0, cut: bool = True
) -> Examples | None:
    """Examples of a task as the run's mixture sets it up; None where the split has none.

    ``cut``: gene lists have ``context.max_genes`` genes, whatever range was drawn from in training.
    """
    settings = context.tasks.get(task) or MixtureTask(task)
    if cut:
        settings = dataclasses.replace(settings, min_genes=context.max_genes, max_genes=context.max_genes)
    try:
        return Examples(context, split, settings, max_examples, seed=seed)
    except MissingData:
        return None


def longest_answer(examples: Sequence[Examples | None]) -> int:
    """Room for answers: half as long again as the longest response of some examples."""
    lengths = [len(response) for e in examples if e is not None for response in e.tokens[1]]
    return -(-3 * max(lengths, default=1) // 2)
