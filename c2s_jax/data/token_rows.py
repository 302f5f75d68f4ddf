"""Token rows: the tokens of every gene name in its four forms and of every text met so far, in one pool.

An example is a sequence of row numbers; its tokens are one vectorised look-up.
"""

import dataclasses
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.ragged import offsets, positions
from c2s_jax.text import GeneTokenTable, Tokenizer

LEADING = ("space", "bare")
TRAILING = ("plain", "period")


def form_number(leading: str, trailing: str) -> int:
    """Number of the form that a list's only gene has: bit 0 bare, bit 1 before a period."""
    return LEADING.index(leading) + 2 * TRAILING.index(trailing)


@dataclasses.dataclass(frozen=True)
class GeneLists:
    """Gene lists one after the other: where each begins, its genes, and the tokens before each gene."""

    genes: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    before: NDArray[np.int64]

    def select(self, which: NDArray) -> "GeneLists":
        """Some of the lists."""
        return dataclasses.replace(self, starts=self.starts[which], lengths=self.lengths[which])


class TokenRows:
    """Rows of tokens by number; row ``form * G + gene`` is a gene's name, the rows after them are texts."""

    def __init__(self, tokenizer: Tokenizer, table: GeneTokenTable):
        self.tokenizer, self.table = tokenizer, table
        self.n_genes = len(table)
        genes = np.arange(self.n_genes)
        forms = [
            table.encode_many(genes, np.arange(self.n_genes + 1), leading, trailing)
            for trailing in TRAILING
            for leading in LEADING
        ]
        lengths = np.concatenate([np.diff(indptr) for _, indptr in forms])
        self._n_tokens, self._n_rows = int(lengths.sum()), len(lengths)
        self._tokens = np.concatenate([tokens for tokens, _ in forms]).astype(np.int32)
        self._starts, self._lengths = offsets(lengths)[:-1], lengths.astype(np.int64)
        self._numbers: dict[tuple[str, bool], int] = {}
        self._lock = Lock()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, and beyond the last row of texts, room for more."""
        return self._lengths

    def gene_rows(self, genes: NDArray, indptr: NDArray, leading: str, trailing: str) -> NDArray[np.int64]:
        """Rows of the genes of lists, first and last in the form that the edges of the list ask for."""
        rows = genes.astype(np.int64)
        filled = indptr[1:] > indptr[:-1]
        rows[indptr[:-1][filled]] += LEADING.index(leading) * self.n_genes
        rows[indptr[1:][filled] - 1] += 2 * TRAILING.index(trailing) * self.n_genes
        return rows

    def lists(self, genes: NDArray, indptr: NDArray) -> GeneLists:
        """Gene lists, ready to be measured."""
        return GeneLists(genes, indptr[:-1], np.diff(indptr), offsets(self._lengths[genes]))

    def list_tokens(self, lists: GeneLists, which: NDArray, form: NDArray, kept: NDArray) -> NDArray[np.int64]:
        """Tokens of lists of which the first genes are written.

        Parameters
        ----------
        lists
            All of them.
        which, form
            Numbers of the lists, and the form of each one's edges (``form_number``).
        kept
            How many genes of each list (of all) are written.
        """
        begin, number = lists.starts[which], kept[which]
        total = lists.before[begin + number] - lists.before[begin]
        some = np.flatnonzero(number)
        first, last = lists.genes[begin[some]], lists.genes[(begin + number)[some] - 1]
        total[some] += self._edges(first, last, number[some] == 1, form[some])
        return total

    def _edges(self, first: NDArray, last: NDArray, single: NDArray, form: NDArray) -> NDArray[np.int64]:
        """Tokens that a list's edges cost beyond those of " NAME"."""
        lengths, g = self._lengths, self.n_genes
        apart = lengths[(form & 1) * g + first] - lengths[first] + lengths[(form & 2) * g + last] - lengths[last]
        return np.where(single, lengths[form * g + first] - lengths[first], apart)

    def texts(self, texts: Sequence[str], *, before_genes: bool = False) -> NDArray[np.int64]:
        """Rows of texts; ``before_genes`` where a bare gene list follows."""
        wanted = [(text, before_genes) for text in texts]
        missing = list(dict.fromkeys(key for key in wanted if key not in self._numbers))
        if missing:
            made = self._encode([text for text, _ in missing], before_genes)
            with self._lock:
                for key, tokens in zip(missing, made):
                    if key not in self._numbers:
                        self._numbers[key] = self._append(np.array(tokens, np.int32))
        return np.array([self._numbers[key] for key in wanted], np.int64)

    def token(self, token_id: int) -> int:
        """Row of one token, such as the one that ends a sequence."""
        key = (f"\0{token_id}", False)
        with self._lock:
            if key not in self._numbers:
                self._numbers[key] = self._append(np.array([token_id], np.int32))
            return self._numbers[key]

    def gather(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of rows one after the other, and how many each has."""
        lengths = self._lengths[rows]
        return self._tokens[positions(self._starts[rows], lengths)], lengths

    def _encode(self, texts: list[str], before_genes: bool) -> list[list[int]]:
        """Tokens of texts. Byte-level BPE cuts line breaks by what follows them: there must be a gene in place."""
        if not before_genes:
            return self.tokenizer.encode_batch(texts)
        name, gene = self.table.gene_names[0], self.table.encode([0], "bare").tolist()
        out = []
        for text, tokens in zip(texts, self.tokenizer.encode_batch([text + name for text in texts])):
            if tokens[len(tokens) - len(gene) :] != gene:
                raise ValueError(f"a gene list right after {text[-20:]!r} is not cut apart from it by this tokenizer")
            out.append(tokens[: len(tokens) - len(gene)])
        return out

    def _append(self, tokens: NDArray[np.int32]) -> int:
        """A new row. Readers hold the old arrays meanwhile, so what is there never moves within them."""
        row, end = self._n_rows, self._n_tokens + len(tokens)
        if end > len(self._tokens):
            self._tokens = _grown(self._tokens, end)
        if row == len(self._starts):
            self._starts, self._lengths = _grown(self._starts, row + 1), _grown(self._lengths, row + 1)
        self._tokens[self._n_tokens : end] = tokens
        self._starts[row], self._lengths[row] = self._n_tokens, len(tokens)
        self._n_rows, self._n_tokens = row + 1, end
        return row


def _grown(values: NDArray, least: int) -> NDArray:
    out = np.zeros(max(2 * len(values), least), values.dtype)
    out[: len(values)] = values
    return out
