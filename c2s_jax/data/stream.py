"""The data stream: packed rows as a pure function of an integer, and batches of them through grain."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock

import grain
import jax
import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.augment import Augmentation, augment
from c2s_jax.data.corpus import CellSource
from c2s_jax.data.corpus_format import FIELDS
from c2s_jax.data.formatting import Formatter, Request, Tokenized, request
from c2s_jax.data.mixture import Draw, Mixture, MixtureTask
from c2s_jax.data.packing import plan_rows
from c2s_jax.data.permute import generator
from c2s_jax.data.ragged import offsets, positions

Rows = dict[str, NDArray]
BLOCKS_KEPT = 3
FITTING = 0.5  # share of examples that must fit into a row with one gene; those that do not are left out
FILL = 1.03  # examples drawn, relative to what rows hold: the plan needs some choice to fill them


class PackedRows:
    """Endless packed training rows: ``rows[n]`` depends on the corpus, the settings and n alone.

    Row n is row ``n % rows_per_block`` of block ``n // rows_per_block``. A block draws its examples from the
    mixture, so any row can be made by any process without those before it.

    Parameters
    ----------
    cells
        Split of a corpus.
    tasks
        The mixture.
    formatter
        Tokenizer and gene table.
    seq_len
        Tokens a row. A longer sentence is cut to the genes that fit beside its prompt; an example that is longer
        with a single gene is left out.
    rows_per_block
        Rows packed together; more pack better.
    augmentation
        Variation of the sentences.
    seed
        Which stream.
    """

    def __init__(
        self,
        cells: CellSource,
        tasks: Sequence[MixtureTask],
        formatter: Formatter,
        *,
        seq_len: int,
        rows_per_block: int = 64,
        augmentation: Augmentation = Augmentation(),
        seed: int = 0,
    ):
        self.cells, self.formatter, self.seq_len, self.seed = cells, formatter, seq_len, seed
        self.rows_per_block, self.augmentation = rows_per_block, augmentation
        self.mixture = Mixture(tasks, cells, seed=seed)
        self.task_names = tuple(t.task for t in tasks)
        names = sorted(
            {f for ts in self.mixture.templates for t in ts for f in t.fields} - {"cell_sentence", "num_genes"}
        )
        if unknown := sorted(set(names) - set(FIELDS)):
            raise ValueError(
                f"templates of {', '.join(self.task_names)} use {', '.join(unknown)}: not a field of a corpus"
            )
        self._fields = {name: cells.fields(name) for name in names}
        self._blocks: OrderedDict[int, Rows] = OrderedDict()
        self._locks: dict[int, Lock] = {}
        self._lock = Lock()
        self._examples_per_block = self._estimate()

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, n: int) -> Rows:
        block, row = divmod(int(n), self.rows_per_block)
        return {name: column[row] for name, column in self.block(block).items()}

    def block(self, number: int) -> Rows:
        """All rows of a block: ``tokens``, ``targets``, ``positions``, ``segment_ids``, ``task_ids`` (int32) and
        ``loss_weights`` (float32), each [rows_per_block, seq_len]. Padding is segment 0."""
        with self._lock:
            lock = self._locks.setdefault(number, Lock())
        with lock:
            rows = self._blocks.get(number)  # one look-up: another thread may drop it meanwhile
            if rows is None:
                rows = self._pack(number, *self._examples(number, self._examples_per_block))
                with self._lock:
                    self._blocks[number] = rows
                    while len(self._blocks) > BLOCKS_KEPT:
                        self._locks.pop(self._blocks.popitem(last=False)[0], None)
            return rows

    def _estimate(self) -> int:
        """Examples that fill a block, from the mean length of a first draw."""
        _, tokenized = self._examples(0, 256)
        fits = tokenized.lengths <= self.seq_len
        if fits.mean() < FITTING:
            who = f"{np.mean(~fits):.0%} of the examples are" if fits.any() else "every example is"
            raise ValueError(
                f"{who} longer than data.seq_len={self.seq_len}, even with a single gene (shortest: "
                f"{tokenized.lengths.min()} tokens, longest: {tokenized.lengths.max()}); raise seq_len"
            )
        lengths = tokenized.lengths[fits]
        return max(1, round(FILL * self.rows_per_block * self.seq_len / lengths.mean()))

    def _examples(self, block: int, size: int) -> tuple[Draw, Tokenized]:
        draw = self.mixture.draw(block, size)
        unique, inverse = np.unique(draw.cell, return_inverse=True)
        cells = self.cells.take(unique)
        lengths = np.diff(cells.indptr)[inverse]
        where = positions(cells.indptr[:-1][inverse], lengths)
        genes, indptr = cells.genes[where], offsets(lengths)
        if self.augmentation.active:
            rng = generator(self.seed, block, 1)
            genes, indptr = augment(genes, cells.expression[where], indptr, self.augmentation, rng)
        kept = np.minimum(np.diff(indptr), draw.genes_kept)
        kept, requests = self._cut_to_fit(draw, kept, genes, indptr)
        genes, indptr = genes[positions(indptr[:-1], kept)], offsets(kept)
        return draw, self.formatter.examples(requests, genes, indptr)

    def _cut_to_fit(
        self, draw: Draw, kept: NDArray, genes: NDArray, indptr: NDArray
    ) -> tuple[NDArray[np.int64], list[Request]]:
        """Genes kept of each sentence, lowered until a row holds the example, and the requests that say so.

        Taking genes away changes the number in the prompt and the last name's form too, so the first cut can leave
        a few tokens too many; each round takes away at least one gene.
        """
        starts = indptr[:-1]
        ends = offsets(self.formatter.table.lengths[genes])  # tokens before each gene
        while True:
            requests = self._requests(draw, kept)
            lengths = self.formatter.lengths(requests, genes[positions(starts, kept)], offsets(kept))
            excess = np.where(kept > 1, lengths - self.seq_len, 0)
            if (excess <= 0).all():
                return kept, requests
            fitting = np.searchsorted(ends, ends[starts + kept] - excess, side="right") - 1 - starts
            kept = np.where(excess > 0, np.maximum(fitting, 1), kept)

    def _requests(self, draw: Draw, kept: NDArray) -> list[Request]:
        out = []
        for task, cell, template, n in zip(draw.task, draw.cell, draw.template, kept):
            chosen = self.mixture.templates[task][template]
            out.append(request(chosen, {name: str(column[cell]) for name, column in self._fields.items()}, int(n)))
        return out

    def _pack(self, block: int, draw: Draw, examples: Tokenized) -> Rows:
        shape = (self.rows_per_block, self.seq_len)
        row_of = plan_rows(examples.lengths, *shape)
        # The plan deals by length: shuffle, or rows of a batch would hold examples of one length and task.
        shuffle = np.append(generator(self.seed, block, 2).permutation(self.rows_per_block), -1)
        row_of = shuffle[row_of]
        order = np.argsort(row_of, kind="stable")
        order = order[row_of[order] >= 0]
        row, lengths = row_of[order], examples.lengths[order]
        before = offsets(lengths)[:-1]
        first = np.searchsorted(row, row)  # index of the row's first example
        column = before - before[first]
        source = positions(examples.indptr[:-1][order], lengths)
        target = positions(row * self.seq_len + column, lengths)
        within = positions(np.zeros(len(order), np.int64), lengths)

        def scatter(values: NDArray, dtype: type) -> NDArray:
            flat: NDArray = np.zeros(shape[0] * shape[1], dtype)
            flat[target] = values
            return flat.reshape(shape)

        task = draw.task[order]
        tokens, is_response = examples.tokens[source], examples.is_response[source]
        last = within == np.repeat(lengths - 1, lengths)
        next_response = np.append(is_response[1:], False)
        all_loss = np.array([t.loss == "all" for t in self.mixture.tasks])[task]
        response_weight = np.array([t.response_weight for t in self.mixture.tasks], np.float32)[task]
        weight = np.where(next_response, np.repeat(response_weight, lengths), np.repeat(all_loss, lengths))
        return {
            "tokens": scatter(tokens, np.int32),
            "targets": scatter(np.where(last, 0, np.append(tokens[1:], 0)), np.int32),
            "loss_weights": scatter(np.where(last, 0.0, weight), np.float32),
            "positions": scatter(within, np.int32),
            "segment_ids": scatter(np.repeat(np.arange(len(order)) - first + 1, lengths), np.int32),
            "task_ids": scatter(np.repeat(task, lengths), np.int32),
        }


def batches(rows: PackedRows, *, start_row: int, batch_size: int, threads: int = 2) -> Iterator[Rows]:
    """Batches of rows from ``start_row`` on, prefetched by grain's reader threads.

    ``batch_size`` is global; each process reads only its own rows of each batch, and the batch holds those.
    """
    local = batch_size // jax.process_count()
    if local * jax.process_count() != batch_size:
        raise ValueError(f"batch_size={batch_size} is not a multiple of the {jax.process_count()} processes")
    first = jax.process_index() * local

    def row(i: int) -> Rows:
        step, j = divmod(i, local)
        return rows[start_row + step * batch_size + first + j]

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * local)
    return iter(grain.MapDataset.range(1 << 60).map(row).to_iter_dataset(options).batch(local))
