"""Examples as token pieces: texts through the tokenizer (cached), gene lists through the table."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.ragged import offsets, positions
from c2s_jax.tasks import GeneSlot, Template, render
from c2s_jax.tasks.templates import Segment
from c2s_jax.text import GeneTokenTable, Tokenizer


@dataclasses.dataclass(frozen=True)
class Request:
    """One example to write: a template and its text fields; the gene list comes beside it."""

    template: Template
    values: tuple[tuple[str, str], ...]


# The parts of one example in order: tokens of a text or a place for genes, and whether the part is response.
Pieces = tuple[tuple[NDArray[np.int32] | GeneSlot, bool], ...]


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


class Formatter:
    """Turns requests and gene lists into tokens, exactly as the tokenizer would the written-out text."""

    def __init__(self, tokenizer: Tokenizer, table: GeneTokenTable):
        if table.fingerprint != tokenizer.fingerprint:
            raise ValueError("the gene table was built with another tokenizer: rebuild it")
        self.tokenizer, self.table = tokenizer, table
        self._pieces = lru_cache(maxsize=1 << 16)(self._tokenize_request)

    def prompts(self, requests: Sequence[Request], genes: NDArray[np.int32], indptr: NDArray[np.int64]) -> Tokenized:
        """Tokens of the prompts alone, after the beginning-of-sequence token if the tokenizer has one."""
        return self._assemble(requests, genes, indptr, with_response=False)

    def examples(self, requests: Sequence[Request], genes: NDArray[np.int32], indptr: NDArray[np.int64]) -> Tokenized:
        """Tokens of prompt, response and end-of-sequence.

        Parameters
        ----------
        requests
            N of them.
        genes, indptr
            The gene list of each, ragged.
        """
        return self._assemble(requests, genes, indptr, with_response=True)

    def lengths(
        self, requests: Sequence[Request], genes: NDArray[np.int32], indptr: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Tokens of each of `examples`, without making them."""
        pieces = [self._pieces(r) for r in requests]
        texts = [sum(len(c) for c, _ in example if not isinstance(c, GeneSlot)) for example in pieces]
        total = np.array(texts, np.int64)
        for (leading, trailing), rows in _by_variant([_slot(example) for example in pieces]).items():
            picked, bounds = _rows_of(genes, indptr, rows)
            total[rows] += self.table.token_lengths(picked, bounds, leading, trailing)
        return total

    def _assemble(
        self,
        requests: Sequence[Request],
        genes: NDArray[np.int32],
        indptr: NDArray[np.int64],
        *,
        with_response: bool,
    ) -> Tokenized:
        pieces = [self._pieces(r) for r in requests]
        gene_tokens, gene_indptr = self._gene_tokens(genes, indptr, [_slot(example) for example in pieces])
        texts: list[NDArray[np.int32]] = [gene_tokens]
        pool_end = len(gene_tokens)
        example, start, length, response = [], [], [], []
        for i, row in enumerate(pieces):
            for content, in_response in row:
                if in_response and not with_response:
                    continue
                if isinstance(content, GeneSlot):
                    start.append(gene_indptr[i])
                    length.append(gene_indptr[i + 1] - gene_indptr[i])
                else:
                    texts.append(content)
                    start.append(pool_end)
                    length.append(len(content))
                    pool_end += len(content)
                example.append(i)
                response.append(in_response)
        lengths = np.array(length, np.int64)
        tokens = np.concatenate(texts)[positions(np.array(start, np.int64), lengths)]
        totals = np.bincount(np.array(example), weights=lengths, minlength=len(requests)).astype(np.int64)
        return Tokenized(tokens, np.repeat(np.array(response, bool), lengths), offsets(totals))

    def _gene_tokens(
        self, genes: NDArray[np.int32], indptr: NDArray[np.int64], slots: list[GeneSlot | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ragged tokens of every gene list, each in its slot's variant."""
        variants = _by_variant(slots)
        if len(variants) <= 1:
            leading, trailing = next(iter(variants), ("space", "plain"))
            return self.table.encode_many(genes, indptr, leading, trailing)
        out: list[NDArray] = [np.empty(0, np.int32)] * len(slots)
        for (leading, trailing), rows in variants.items():
            tokens, ends = self.table.encode_many(*_rows_of(genes, indptr, rows), leading, trailing)
            for row, part in zip(rows, np.split(tokens, ends[1:-1])):
                out[row] = part
        return np.concatenate(out), offsets(np.array([len(x) for x in out]))

    def _tokenize_request(self, request: Request) -> Pieces:
        prompt, response = render(request.template, dict(request.values))
        t = self.tokenizer
        if not prompt and t.bos_id is None:
            raise ValueError(f"{request.template}: an empty prompt, and no token begins a sequence with this tokenizer")
        pieces: list[tuple[NDArray[np.int32] | GeneSlot, bool]] = []
        if t.bos_id is not None:
            pieces.append((np.array([t.bos_id], np.int32), False))
        for segments, in_response in ((prompt, False), (response, True)):
            for segment, following in zip(segments, (*segments[1:], None)):
                content = segment if isinstance(segment, GeneSlot) else self._text_tokens(segment, following)
                pieces.append((content, in_response))
        pieces.append((np.array([t.eos_id], np.int32), True))
        if sum(isinstance(p[0], GeneSlot) for p in pieces) > 1:
            raise ValueError(f"{request.template}: more than one {{cell_sentence}} in a template")
        return tuple(pieces)

    def _text_tokens(self, text: str, following: Segment | None) -> NDArray[np.int32]:
        """Tokens of a segment. Byte-level BPE cuts line breaks by what follows them: there must be a gene in place."""
        if not isinstance(following, GeneSlot) or following.leading == "space":
            return np.array(self.tokenizer.encode(text), np.int32)
        gene = self.table.encode([0], "bare")
        tokens = np.array(self.tokenizer.encode(text + self.table.gene_names[0]), np.int32)
        before = len(tokens) - len(gene)
        if before < 0 or not np.array_equal(tokens[before:], gene):
            raise ValueError(f"a gene list right after {text[-20:]!r} is not cut apart from it by this tokenizer")
        return tokens[:before]


def _slot(pieces: Pieces) -> GeneSlot | None:
    return next((content for content, _ in pieces if isinstance(content, GeneSlot)), None)


def _by_variant(slots: Sequence[GeneSlot | None]) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Numbers of the examples whose gene list has each variant's edges."""
    rows: dict[tuple[str, str], list[int]] = {}
    for i, slot in enumerate(slots):
        if slot:
            rows.setdefault((slot.leading, slot.trailing), []).append(i)
    return {variant: np.array(numbers) for variant, numbers in rows.items()}


def _rows_of(
    genes: NDArray[np.int32], indptr: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Some of the gene lists, as a ragged array."""
    lengths = np.diff(indptr)[rows]
    return genes[positions(indptr[rows], lengths)], offsets(lengths)


def request(template: Template, fields: Mapping[str, str], num_genes: int) -> Request:
    """A request that carries only the fields its template uses, so that equal ones share their tokens.

    White space around a value is left out: it would merge with that of the template.
    """
    values = {name: value.strip() for name, value in fields.items()} | {"num_genes": str(num_genes)}
    used = template.fields - {"cell_sentence"}
    if missing := sorted(f for f in used if not values.get(f)):
        raise ValueError(f"template {template.model_input!r} needs {', '.join(missing)}, which this cell lacks")
    return Request(template, tuple(sorted((f, values[f]) for f in used)))
