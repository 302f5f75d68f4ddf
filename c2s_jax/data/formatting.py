"""Examples as tokens: texts through the tokenizer (once a value), gene lists by look-up."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.pieces import Phrase, Piece, Series, Words, pieces
from c2s_jax.data.ragged import distinct, offsets, places, positions, row_numbers, row_sums, take_rows
from c2s_jax.data.requests import Draft, Request, draft_of
from c2s_jax.data.token_rows import GeneLists, TokenRows, form_number
from c2s_jax.tasks.rendering import CellSlots, GeneSlot, cell_header
from c2s_jax.text import GeneTokenTable, Tokenizer


@dataclasses.dataclass(frozen=True)
class Tokenized:
    """N examples as ragged tokens: example i is ``tokens[indptr[i]:indptr[i+1]]``, ``is_response`` marks its answer."""

    tokens: NDArray[np.int32]
    is_response: NDArray[np.bool_]
    indptr: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.indptr)


@dataclasses.dataclass(frozen=True)
class Slots:
    """Places for gene lists: in which example, for which list, the form of its edges, and whether in the prompt."""

    example: NDArray[np.int64]
    list: NDArray[np.int64]
    form: NDArray[np.int64]
    asked: NDArray[np.bool_]

    def longest(self, kept: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Genes of the longest list of each of n examples, int64 [n]."""
        out = np.zeros(n, np.int64)
        np.maximum.at(out, self.example, kept[self.list])
        return out


@dataclasses.dataclass(frozen=True)
class _Token:
    """One token that no text gives, such as the one that ends a sequence."""

    row: int


class Formatter:
    """Turns examples into tokens, exactly as the tokenizer would the written-out text."""

    def __init__(self, tokenizer: Tokenizer, table: GeneTokenTable):
        if table.fingerprint != tokenizer.fingerprint:
            raise ValueError("the gene table was built with another tokenizer: rebuild it")
        self.tokenizer, self.table = tokenizer, table
        self.rows = TokenRows(tokenizer, table)
        bos = tokenizer.bos_id
        self._before = () if bos is None else (_Token(self.rows.token(bos)),)
        self._after = (_Token(self.rows.token(tokenizer.eos_id)),)

    def prompts(
        self,
        requests: Sequence[Request],
        genes: NDArray[np.int32],
        indptr: NDArray[np.int64],
        lists: NDArray[np.int64] | None = None,
    ) -> Tokenized:
        """Tokens of the prompts alone, after the beginning-of-sequence token if the tokenizer has one."""
        return self.tokens(draft_of(requests, indptr, lists), genes, indptr, with_response=False)

    def examples(
        self,
        requests: Sequence[Request],
        genes: NDArray[np.int32],
        indptr: NDArray[np.int64],
        lists: NDArray[np.int64] | None = None,
    ) -> Tokenized:
        """Tokens of prompt, response and end-of-sequence.

        Parameters
        ----------
        requests
            N of them.
        genes, indptr
            Their gene lists, ragged, those of each request one after the other.
        lists
            Number of gene lists of each request, int [N]; one each by default.
        """
        return self.tokens(draft_of(requests, indptr, lists), genes, indptr)

    def tokens(
        self, draft: Draft, genes: NDArray[np.int32], indptr: NDArray[np.int64], *, with_response: bool = True
    ) -> Tokenized:
        """Tokens of drafts with their gene lists."""
        filled, asked = np.zeros(len(draft), np.int64), np.zeros(len(draft), np.int64)
        made: list[tuple[NDArray, ...]] = []
        for examples, piece, in_response in self._walk(draft, with_response):
            rows, counts = self._rows_of(piece, draft, examples, genes, indptr)
            made.append((examples, filled[examples], counts, rows))
            filled[examples] += counts
            if not in_response:
                asked[examples] += counts
        bounds = offsets(filled)
        sequence = np.empty(bounds[-1], np.int64)
        for examples, before, counts, rows in made:
            sequence[positions(bounds[examples] + before, counts)] = rows
        tokens, lengths = self.rows.gather(sequence)
        answers = places(filled) >= np.repeat(asked, filled)
        return Tokenized(tokens, np.repeat(answers, lengths), offsets(row_sums(lengths, bounds)))

    def text_lengths(self, draft: Draft) -> NDArray[np.int64]:
        """Tokens of each whole example without its genes, int64 [N]."""
        total = np.zeros(len(draft), np.int64)
        for examples, piece, _ in self._walk(draft):
            if not isinstance(piece, GeneSlot):
                rows, counts = self._text_rows(piece, draft, examples)
                total[examples] += row_sums(self.rows.lengths[rows], offsets(counts))
        return total

    def slots(self, draft: Draft) -> Slots:
        """The places for gene lists in whole examples."""
        none = np.zeros(0, np.int64)
        found = [(none, none, none, none.astype(bool))]
        for examples, piece, in_response in self._walk(draft):
            if isinstance(piece, GeneSlot | CellSlots):
                lists = _lists_of(piece, draft, examples)
                counts = draft.cells[examples] if isinstance(piece, CellSlots) else np.ones(len(examples), np.int64)
                form = np.full(len(lists), form_number(*_edges(piece)))
                found.append((np.repeat(examples, counts), lists, form, np.full(len(lists), not in_response)))
        return Slots(*map(np.concatenate, zip(*found)))

    def lengths(self, draft: Draft, slots: Slots, lists: GeneLists, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each whole example when the first ``kept`` genes of each list are written, int64 [N]."""
        return self.text_lengths(draft) + self.gene_tokens(slots, lists, kept, len(draft))

    def gene_tokens(self, slots: Slots, lists: GeneLists, kept: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Tokens of the gene lists of each of n examples."""
        written = self.rows.list_tokens(lists, slots.list, slots.form, kept)
        return np.bincount(slots.example, written, n).astype(np.int64)

    def _walk(
        self, draft: Draft, with_response: bool = True
    ) -> Iterator[tuple[NDArray[np.int64], Piece | _Token, bool]]:
        """Examples of one template, each of its pieces in order, and whether the piece is response."""
        order = np.argsort(draft.template, kind="stable")
        numbers, starts = np.unique(draft.template[order], return_index=True)
        for number, examples in zip(numbers.tolist(), np.split(order, starts[1:])):
            template = draft.templates[number]
            prompt, response = pieces(template)
            if not (prompt or self._before):
                raise ValueError(f"{template}: an empty prompt, and no token begins a sequence with this tokenizer")
            yield from ((examples, piece, False) for piece in (*self._before, *prompt))
            if with_response:
                yield from ((examples, piece, True) for piece in (*response, *self._after))

    def _rows_of(
        self, piece: Piece | _Token, draft: Draft, examples: NDArray, genes: NDArray, indptr: NDArray
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token rows of a piece in some examples, and how many each example has."""
        if not isinstance(piece, GeneSlot | CellSlots):
            return self._text_rows(piece, draft, examples)
        picked, bounds = take_rows(genes, indptr, _lists_of(piece, draft, examples))
        rows, kept = self.rows.gene_rows(picked, bounds, *_edges(piece)), np.diff(bounds)
        if isinstance(piece, GeneSlot):
            return rows, kept
        headers, _ = self._text_rows(piece, draft, examples)
        cells = draft.cells[examples]
        headed = places(cells) > 0  # the first cell's header belongs to the words before it
        ends = offsets(kept + headed)
        out = np.empty(ends[-1], np.int64)
        out[ends[:-1][headed]] = headers
        out[positions(ends[:-1] + headed, kept)] = rows
        return out, row_sums(kept + headed, offsets(cells))

    def _text_rows(
        self, piece: Piece | _Token, draft: Draft, examples: NDArray
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token rows of a piece's text in some examples, and how many each example has."""
        once = np.ones(len(examples), np.int64)
        if isinstance(piece, _Token):
            return piece.row * once, once
        if isinstance(piece, Words):
            return self.rows.texts([piece.text], before_genes=piece.before_genes)[0] * once, once
        if isinstance(piece, Phrase):
            return self._phrase_rows(piece, draft, examples), once
        if isinstance(piece, Series):
            return self._series_rows(piece, draft, examples)
        assert isinstance(piece, CellSlots)
        counts = np.maximum(draft.cells[examples] - 1, 0)
        headers = [cell_header(cell) for cell in range(1, int(counts.max(initial=0)) + 1)]
        return self.rows.texts(headers, before_genes=True)[places(counts)], counts

    def _phrase_rows(self, piece: Phrase, draft: Draft, examples: NDArray) -> NDArray[np.int64]:
        fields = [draft.texts[field.name] for field in piece.fields]
        columns = [distinct(field.codes[examples]) for field in fields]
        values, which = columns[0][0][None], columns[0][1]
        if len(fields) > 1:
            found, which = np.unique(np.stack([w for _, w in columns]), axis=1, return_inverse=True)
            values = np.stack([v[w] for (v, _), w in zip(columns, found)])
        texts = [piece.text(tuple(f.value(c) for f, c in zip(fields, column))) for column in values.T.tolist()]
        return self.rows.texts(texts, before_genes=piece.before_genes)[which.reshape(-1)]

    def _series_rows(self, piece: Series, draft: Draft, examples: NDArray) -> tuple[NDArray, NDArray]:
        field = draft.texts[piece.field.name].select(examples)
        assert field.indptr is not None
        counts = np.diff(field.indptr)
        first = places(counts) == 0
        last = np.append(first[1:], True)
        values, which = distinct(field.codes * 4 + first * 2 + last)
        texts = [piece.text(field.value(value >> 2), bool(value & 2), bool(value & 1)) for value in values.tolist()]
        return self.rows.texts(texts, before_genes=piece.before_genes)[which], counts


def _edges(piece: GeneSlot | CellSlots) -> tuple[str, str]:
    return (piece.leading, piece.trailing) if isinstance(piece, GeneSlot) else ("bare", "period")


def _lists_of(piece: GeneSlot | CellSlots, draft: Draft, examples: NDArray) -> NDArray[np.int64]:
    """Numbers of the gene lists that stand in a place, of all examples one after the other."""
    first, end = draft.indptr[examples], draft.indptr[examples + 1]
    if isinstance(piece, CellSlots):
        cells = draft.cells[examples]
        found, example = positions(first, cells), row_numbers(cells)
    else:
        name = piece.name
        found = first if name == "cell_sentence" else first + 1 if name == "other_cell_sentence" else end - 1
        example = np.arange(len(examples))
    if (outside := (found < first[example]) | (found >= end[example])).any():
        which = example[outside.argmax()]
        template = draft.templates[draft.template[examples[which]]]
        raise ValueError(f"{template}: {end[which] - first[which]} gene lists are too few for it")
    return found
