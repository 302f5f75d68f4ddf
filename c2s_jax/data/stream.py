"""The data stream: packed rows as a pure function of an integer, and batches of them through grain."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import grain
import jax
import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.augment import Augmentation
from c2s_jax.data.cache import LastFew
from c2s_jax.data.corpus import Corpus
from c2s_jax.data.formatting import Formatter, Tokenized
from c2s_jax.data.mixture import Block, Mixture, MixtureTask
from c2s_jax.data.packing import plan_rows
from c2s_jax.data.permute import generator
from c2s_jax.data.ragged import offsets, places, positions
from c2s_jax.data.survey import Survey
from c2s_jax.data.writer import task_writers

Rows = dict[str, NDArray]
PACK_ROWS = 64  # rows that are made together
PACKS_KEPT, BLOCKS_KEPT = 3, 2
SPARE = 8.0  # of the next block's examples that may be wanted, per root of a block's examples: six deviations or more


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """The examples of a block, and the bounds of those that each pack is made of, int64 [packs + 1]."""

    examples: Block
    bounds: NDArray[np.int64]


class PackedRows:
    """Endless packed training rows: ``rows[n]`` depends on the corpus, the settings and n alone.

    Row n is row ``n % rows_per_block`` of block ``n // rows_per_block``. A block draws its examples from the mixture
    and deals them out to packs of 64 rows, of about equally many tokens as far as can be told without reading cells.
    A pack reads its cells, measures its examples and places them in its rows. So any row can be made by any process
    without those before it.

    Parameters
    ----------
    corpus, split
        Where the examples come from.
    tasks
        The mixture.
    formatter
        Tokenizer and gene table.
    seq_len
        Tokens a row. Sentences of a longer example are cut to the genes that fit, evenly over its cells; an example
        that is longer with a single gene of each is left out.
    rows_per_block
        Rows over which tasks keep their exact shares; the more, the more equal the packs of a block.
    augmentation
        Variation of the sentences.
    seed
        Which stream.
    missing
        What becomes of tasks that the split has no data for, see ``Mixture``.

    Attributes
    ----------
    survey
        What the tasks' examples are like.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        tasks: Sequence[MixtureTask],
        formatter: Formatter,
        *,
        seq_len: int,
        rows_per_block: int = PACK_ROWS,
        augmentation: Augmentation = Augmentation(),
        seed: int = 0,
        missing: Literal["error", "skip"] = "error",
    ):
        self.formatter, self.seq_len, self.rows_per_block, self.seed = formatter, seq_len, rows_per_block, seed
        self.mixture = Mixture(tasks, corpus, split, seed=seed, missing=missing)
        self.task_names = tuple(t.task for t in tasks)
        self.writers = task_writers(self.mixture, corpus, formatter, seq_len, augmentation)
        self.survey = Survey(self.mixture, self.writers, (min(PACK_ROWS, rows_per_block), seq_len))
        self._pack_starts = np.arange(0, rows_per_block, PACK_ROWS)
        self._dealt_per_row = self.survey.dealt * seq_len
        self.examples_per_block = max(1, round(rows_per_block * self._dealt_per_row / self.survey.mean_tokens))
        self.plan = LastFew(self._plan_block, BLOCKS_KEPT)
        self.pack = LastFew(self._make_pack, PACKS_KEPT)

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, n: int) -> Rows:
        block, row = divmod(int(n), self.rows_per_block)
        pack = block * len(self._pack_starts) + row // PACK_ROWS
        return {name: column[row % PACK_ROWS] for name, column in self.pack(pack).items()}

    def block(self, number: int) -> Rows:
        """All rows of a block, see ``pack``."""
        n = len(self._pack_starts)
        packs = [self.pack(pack) for pack in range(number * n, (number + 1) * n)]
        return {name: np.concatenate([pack[name] for pack in packs]) for name in packs[0]}

    def describe(self) -> list[str]:
        """What the stream holds, a line a task, and why tasks are left out."""
        head = f"{self.rows_per_block:,} rows of {self.seq_len:,} tokens a block, {self.examples_per_block:,} examples"
        found = [f"  {task}" for task in self.survey.tasks if task is not None]
        return [head, *found, *(f"  left out: {reason}" for reason in self.mixture.lacking.values())]

    def _plan_block(self, number: int) -> BlockPlan:
        """The examples of a block, cut into packs where the expected tokens are.

        Blocks draw equally many examples, which have more tokens or fewer than its rows hold: what a block cannot use
        is left out, and what it lacks are the first examples of the next.
        """
        own, more = (self.mixture.block(n, self.examples_per_block) for n in (number, number + 1))
        examples = own.followed_by(more.part(0, round(PACK_ROWS + SPARE * len(more) ** 0.5)))
        before = np.cumsum(self.survey.tokens(examples))
        ends = self._dealt_per_row * np.append(self._pack_starts, self.rows_per_block)
        bounds = np.searchsorted(before, ends, side="right")
        return BlockPlan(examples, np.maximum(bounds, np.arange(len(bounds))))  # one example a pack at least

    def _make_pack(self, number: int) -> Rows:
        """All rows of a pack: ``tokens``, ``targets``, ``positions``, ``segment_ids``, ``task_ids`` (int32) and
        ``loss_weights`` (float32), each [rows, seq_len]. Padding is segment 0."""
        block, within = divmod(number, len(self._pack_starts))
        plan, start = self.plan(block), self._pack_starts[within]
        chosen = plan.examples.part(*plan.bounds[within : within + 2].tolist())
        n_rows = min(PACK_ROWS, self.rows_per_block - int(start))
        order = np.argsort(chosen.task, kind="stable")
        examples = self._write(chosen, order)
        lengths = np.empty(len(order), np.int64)
        lengths[order] = examples.lengths
        row_of = plan_rows(lengths, n_rows, self.seq_len)
        # The plan deals by length: shuffle, or rows of a batch would hold examples of one length and task.
        shuffle = np.append(generator(self.seed, number, 2).permutation(n_rows), -1)
        return fill_rows(
            examples, chosen.task[order], shuffle[row_of[order]], (n_rows, self.seq_len), self.mixture.tasks
        )

    def _write(self, block: Block, order: NDArray[np.int64]) -> Tokenized:
        """The examples of a block in an order that brings each task's together."""
        parts = []
        for number in np.unique(block.task).tolist():
            writer = self.writers[number]
            assert writer is not None
            parts.append(writer.write(block.number[order][block.task[order] == number]).examples)
        return Tokenized(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.is_response for part in parts]),
            offsets(np.concatenate([part.lengths for part in parts])),
        )


def fill_rows(
    examples: Tokenized,
    task: NDArray[np.int64],
    row_of: NDArray[np.int64],
    shape: tuple[int, int],
    tasks: Sequence[MixtureTask],
) -> Rows:
    """Rows [B, T] with examples written into them one after the other.

    Parameters
    ----------
    examples, task
        Tokens and number of the task of each.
    row_of
        Row of each; -1 leaves it out.
    shape
        Of the rows.
    tasks
        Settings by number, for the weight of the loss.
    """
    order = np.argsort(row_of, kind="stable")
    order = order[row_of[order] >= 0]
    row, lengths = row_of[order], examples.lengths[order]
    before = offsets(lengths)[:-1]
    first = np.searchsorted(row, row)  # index of the row's first example
    source = positions(examples.indptr[:-1][order], lengths)
    target = positions(row * shape[1] + before - before[first], lengths)
    within = places(lengths)

    def scatter(values: NDArray, dtype: type) -> NDArray:
        flat: NDArray = np.zeros(shape[0] * shape[1], dtype)
        flat[target] = values
        return flat.reshape(shape)

    task = task[order]
    tokens, is_response = examples.tokens[source], examples.is_response[source]
    last = within == np.repeat(lengths - 1, lengths)
    next_response = np.append(is_response[1:], False)
    all_loss = np.array([t.loss == "all" for t in tasks], np.float32)[task]
    response_weight = np.array([t.response_weight for t in tasks], np.float32)[task]
    weight = np.where(next_response, np.repeat(response_weight, lengths), np.repeat(all_loss, lengths))
    return {
        "tokens": scatter(tokens, np.int32),
        "targets": scatter(np.where(last, 0, np.append(tokens[1:], 0)), np.int32),
        "loss_weights": scatter(np.where(last, 0.0, weight), np.float32),
        "positions": scatter(within, np.int32),
        "segment_ids": scatter(np.repeat(np.arange(len(order)) - first + 1, lengths), np.int32),
        "task_ids": scatter(np.repeat(task, lengths), np.int32),
    }


def batches(
    rows: PackedRows,
    *,
    start_row: int,
    batch_size: int,
    threads: int = 2,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Iterator[Rows]:
    """Batches of rows from ``start_row`` on, prefetched by grain's reader threads.

    ``batch_size`` is global; each process reads only its own rows of each batch, and the batch holds those. Which
    process of how many this is, JAX says unless it is given.
    """
    count = jax.process_count() if process_count is None else process_count
    local = batch_size // count
    if local * count != batch_size:
        raise ValueError(f"batch_size={batch_size} is not a multiple of the {count} processes")
    first = (jax.process_index() if process_index is None else process_index) * local

    def row(i: int) -> Rows:
        step, j = divmod(i, local)
        return rows[start_row + step * batch_size + first + j]

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * local)
    return iter(grain.MapDataset.range(1 << 60).map(row).to_iter_dataset(options).batch(local))
