"""One task's examples as tokens: chosen, read, put in order, cut to fit and written."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.augment import Augmentation, inverse_document_frequency, sentences
from c2s_jax.data.corpus import Corpus
from c2s_jax.data.fitting import cut_to_fit
from c2s_jax.data.formatting import Formatter, Slots, Tokenized
from c2s_jax.data.interactions import Interactions, Strongest
from c2s_jax.data.mixture import Mixture
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.data.requests import Draft
from c2s_jax.data.task_stream import Draw, TaskStream
from c2s_jax.data.texts import Texts, numbers
from c2s_jax.data.token_rows import GeneLists


@dataclasses.dataclass(frozen=True)
class Written:
    """N examples of a task.

    Attributes
    ----------
    examples
        Their tokens.
    shortened
        Which of them lost genes so as to fit, bool [N].
    genes
        Genes of each, int64 [N].
    text_tokens
        Tokens of each that are not genes', int64 [N].
    """

    examples: Tokenized
    shortened: NDArray[np.bool_]
    genes: NDArray[np.int64]
    text_tokens: NDArray[np.int64]


class Writer:
    """Writes the examples of one task.

    Parameters
    ----------
    stream
        The task's examples.
    formatter
        Tokenizer and gene table.
    seq_len
        Most tokens an example.
    augmentation
        Variation of the sentences.
    idf
        Weight of each gene, where the task's ``gene_order`` needs it.
    interactions
        Those of the corpus, where the task tells them.
    """

    def __init__(
        self,
        stream: TaskStream,
        formatter: Formatter,
        *,
        seq_len: int,
        augmentation: Augmentation,
        idf: NDArray[np.float32] | None = None,
        interactions: Interactions | None = None,
    ):
        self.stream, self.formatter, self.seq_len = stream, formatter, seq_len
        self._augmentation, self._idf, self._interactions = augmentation, idf, interactions

    def write(self, which: NDArray[np.int64]) -> Written:
        """The examples with these numbers; those that are too long with one gene of each list stay too long."""
        return self.write_draw(self.stream.draw(which))

    def write_draw(self, draw: Draw) -> Written:
        """Examples as drawn, or as changed since (their cells exchanged, say)."""
        genes, indptr = sentences(
            self.stream.context.source.take(draw.lists),
            draw.most,
            draw.key,
            self._augmentation,
            self.stream.settings.gene_order,
            self._idf,
        )
        whole = self._sheet(draw.draft, self.formatter.rows.lists(genes, indptr))
        slots, kept = whole.slots, whole.cut(self.seq_len)
        cut = np.zeros(len(draw.draft), bool)
        np.logical_or.at(cut, slots.example, (kept < whole.lists.lengths)[slots.list])
        genes, indptr = genes[positions(indptr[:-1], kept)], offsets(kept)
        examples = self.formatter.tokens(whole.told(kept), genes, indptr)
        n_genes = np.bincount(slots.example, kept[slots.list], len(draw.draft)).astype(np.int64)
        return Written(examples, cut, n_genes, examples.lengths - whole.gene_tokens(kept))

    def estimate(self, which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of the texts and number of genes of some examples, without reading their cells.

        Interactions, which depend on the genes, are not among the texts.
        """
        draw = self.stream.draw(which)
        n_genes = self.stream.context.source.n_genes[draw.lists]
        kept = np.minimum(self._augmentation.genes_left(n_genes, draw.key), draw.most)
        slots = self.formatter.slots(draw.draft)
        draft = draw.draft.replace_texts(num_genes=numbers(_shown(draw.draft, kept)))
        if self._interactions is not None:
            draft = draft.replace_texts(interactions=Texts.of_series([("",)] * len(draft)))
        genes = np.bincount(slots.example, kept[slots.list], len(draft)).astype(np.int64)
        return self.formatter.text_lengths(draft), genes

    def _sheet(self, draft: Draft, lists: GeneLists) -> "_Sheet":
        slots, strongest = self.formatter.slots(draft), None
        if self._interactions is not None:
            most = self.stream.settings.max_interactions
            strongest = self._interactions.strongest(slots, lists, len(draft), most)
        return _Sheet(self.formatter, draft, lists, slots, strongest)


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """N examples with whole sentences, to be measured with shorter ones."""

    formatter: Formatter
    draft: Draft
    lists: GeneLists
    slots: Slots
    strongest: Strongest | None

    def cut(self, limit: int) -> NDArray[np.int64]:
        """Genes of each list with which the examples have at most ``limit`` tokens, see `cut_to_fit`."""
        kept = self.lists.lengths.copy()
        long = np.flatnonzero(self.lengths(kept) > limit)
        if len(long):
            own = positions(self.draft.indptr[long], np.diff(self.draft.indptr)[long])
            rest = self._select(long, own)
            # What is told of interactions falls with the genes, too; numbers of genes hardly do.
            falling = rest.gene_tokens if self.strongest is None else rest.lengths
            kept[own] = cut_to_fit(kept[own], rest.lengths, falling, rest.slots, limit)
        return kept

    def _select(self, rows: NDArray[np.int64], own: NDArray[np.int64]) -> "_Sheet":
        """Some of the examples, and their lists."""
        draft = self.draft.select(rows)
        strongest = None if self.strongest is None else self.strongest.select(rows)
        return _Sheet(self.formatter, draft, self.lists.select(own), self.formatter.slots(draft), strongest)

    def told(self, kept: NDArray[np.int64]) -> Draft:
        """The draft with the texts that depend on which genes are written."""
        draft = self.draft.replace_texts(num_genes=numbers(_shown(self.draft, kept)))
        if self.strongest is None:
            return draft
        return draft.replace_texts(interactions=self.strongest.texts(self.slots.longest(kept, len(draft))))

    def lengths(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each whole example when the first ``kept`` genes of each list are written, int64 [N]."""
        return self.formatter.lengths(self.told(kept), self.slots, self.lists, kept)

    def gene_tokens(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of them that are genes'."""
        return self.formatter.gene_tokens(self.slots, self.lists, kept, len(self.draft))


def _shown(draft: Draft, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Genes of the longest of the lists that stand for cells, of each example."""
    out = np.zeros(len(draft), np.int64)
    cell = positions(draft.indptr[:-1], draft.cells)
    np.maximum.at(out, np.repeat(np.arange(len(draft)), draft.cells), kept[cell])
    return out


def task_writers(
    mixture: Mixture, corpus: Corpus, formatter: Formatter, seq_len: int, augmentation: Augmentation
) -> list[Writer | None]:
    """A writer for each task that has examples."""
    rare = any(t.gene_order == "tfidf" for t in mixture.tasks)
    idf = inverse_document_frequency(corpus.cells("train"), len(corpus.genes)) if rare else None
    known = Interactions(corpus) if any(t.interactions for t in mixture.tasks) else None
    return [
        None
        if stream is None
        else Writer(
            stream,
            formatter,
            seq_len=seq_len,
            augmentation=augmentation,
            idf=idf,
            interactions=known if stream.settings.interactions else None,
        )
        for stream in mixture.streams
    ]
