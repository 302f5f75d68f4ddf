"""The gene → token-ids table: tokenising a cell sentence is a look-up.

Gene names are separated by one space. No piece of a SentencePiece model crosses a space, and byte-level BPE cuts
text into words with the space before them first, so the tokens of a sentence are the tokens of its names one after
the other. Only the edges differ: the first name may stand without a space before it, the last may be followed by
a period (which can merge with its last letters).
Hence four rows a gene: {space, bare} × {plain, period}.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2s_jax.text.tokenizer import Tokenizer

_LEADING = {"space": 0, "bare": 1}
_TRAILING = {"plain": 0, "period": 2}
_VARIANTS = ((" ", ""), ("", ""), (" ", "."), ("", "."))  # row = variant · G + gene

# Text that may stand around a gene list; the list must tokenise the same beside all of them.
_BEFORE = {"space": ("", "Genes:", "x.", "\n"), "bare": ("", "Cell 1:\n")}
_AFTER = {"plain": ("", "\n", " next"), "period": ("", "\n", " Next")}

_CHECKED_CHUNK = 256


class GeneTokenTable:
    """Tokens of every gene name in each position a sentence can give it.

    Build with `GeneTokenTable.build`, which proves the look-up equal to the tokenizer on sentences that hold
    every gene.

    Attributes
    ----------
    gene_names : tuple of str
        Row number = gene id.
    fingerprint : str
        Fingerprint of the tokenizer.
    lengths : int32 [G]
        Tokens of " NAME", the form of every name inside a sentence.
    """

    def __init__(self, gene_names: Sequence[str], tokens: NDArray, offsets: NDArray, fingerprint: str) -> None:
        self.gene_names = tuple(gene_names)
        self.fingerprint = fingerprint
        self._tokens = np.ascontiguousarray(tokens, dtype=np.int32)
        self._offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        self._row_lengths = np.diff(self._offsets).astype(np.int32)
        if len(self._row_lengths) != len(_VARIANTS) * len(self.gene_names):
            raise ValueError(
                f"{len(self._row_lengths)} token rows for {len(self.gene_names)} genes; expected four a gene"
            )
        self.lengths = self._row_lengths[: len(self.gene_names)]
        self.lengths.flags.writeable = False

    def __len__(self) -> int:
        return len(self.gene_names)

    @classmethod
    def build(cls, tokenizer: Tokenizer, gene_names: Sequence[str]) -> "GeneTokenTable":
        """Tokenise every name in its four forms and check the look-up against the tokenizer.

        Parameters
        ----------
        tokenizer : Tokenizer
        gene_names : sequence of str
            Names in the order of the gene vocabulary.

        Raises
        ------
        ValueError
            If a name is empty or holds white space, or if a sentence tokenises differently from the look-up,
            so that the table would be wrong with this tokenizer.
        """
        names = list(gene_names)
        for gene, name in enumerate(names):
            if not name or name.split() != [name]:
                raise ValueError(f"gene {gene} has the name {name!r}: names must be non-empty, without white space")
        encoded = tokenizer.encode_batch([lead + name + end for lead, end in _VARIANTS for name in names])
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = np.fromiter((t for row in encoded for t in row), dtype=np.int32, count=int(offsets[-1]))
        table = cls(names, tokens, offsets, tokenizer.fingerprint)
        table._verify(tokenizer)
        return table

    def encode(self, gene_ids: ArrayLike, leading: str = "space", trailing: str = "plain") -> NDArray[np.int32]:
        """Tokens of one sentence.

        Parameters
        ----------
        gene_ids : int [N]
            Genes in rank order.
        leading : "space" or "bare"
            Whether a space precedes the first gene.
        trailing : "plain" or "period"
            Whether "." follows the last gene.

        Returns
        -------
        int32 [T]

        Raises
        ------
        IndexError
            If an id is outside the vocabulary.
        """
        genes = np.asarray(gene_ids).reshape(-1)
        return self.encode_many(genes, [0, genes.size], leading, trailing)[0]

    def encode_many(
        self,
        gene_ids: ArrayLike,
        indptr: ArrayLike,
        leading: str = "space",
        trailing: str = "plain",
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of many sentences at once.

        Parameters
        ----------
        gene_ids : int [N]
            Genes of all sentences, one sentence after the other.
        indptr : int [C+1]
            Sentence ``i`` holds ``gene_ids[indptr[i]:indptr[i + 1]]``.
        leading, trailing
            As in `encode`, for every sentence.

        Returns
        -------
        tokens : int32 [T]
        token_indptr : int64 [C+1]
        """
        from c2s_jax.text.gene_table_kernel import write_tokens  # numba takes half a second to import

        genes, pointers = _ragged(gene_ids, indptr)
        counts = self._count(genes, pointers, leading, trailing)
        token_indptr = np.concatenate([[0], np.cumsum(counts)])
        tokens = np.empty(token_indptr[-1], np.int32)
        write_tokens(genes, pointers, self._tokens, self._offsets, *self._edges(leading, trailing), tokens)
        return tokens, token_indptr

    def token_lengths(
        self,
        gene_ids: ArrayLike,
        indptr: ArrayLike | None = None,
        leading: str = "space",
        trailing: str = "plain",
    ) -> NDArray[np.int64]:
        """Number of tokens of one sentence (0-d, without `indptr`) or of many sentences ([C])."""
        if indptr is not None:
            return self._count(*_ragged(gene_ids, indptr), leading, trailing)
        genes = np.asarray(gene_ids).reshape(-1)
        return self._count(*_ragged(genes, [0, genes.size]), leading, trailing).reshape(())

    def _count(self, genes: NDArray, indptr: NDArray[np.int64], leading: str, trailing: str) -> NDArray[np.int64]:
        from c2s_jax.text.gene_table_kernel import count_tokens

        counts = np.zeros(len(indptr) - 1, np.int64)
        edges = self._edges(leading, trailing)
        bad = count_tokens(genes, indptr, self._row_lengths, len(self), *edges, counts)
        if bad >= 0:
            raise IndexError(f"gene id {genes[bad]} at position {bad} is outside 0 … {len(self) - 1}")
        return counts

    def _edges(self, leading: str, trailing: str) -> tuple[int, int]:
        """What the first and the last gene of a sentence add to their rows."""
        if leading not in _LEADING or trailing not in _TRAILING:
            raise ValueError(
                f"leading={leading!r}, trailing={trailing!r}: expected leading in {list(_LEADING)} and "
                f"trailing in {list(_TRAILING)}"
            )
        return _LEADING[leading] * len(self), _TRAILING[trailing] * len(self)

    def _verify(self, tokenizer: Tokenizer) -> None:
        order = np.random.Generator(np.random.Philox(key=len(self))).permutation(len(self))
        contexts = [
            (lead, trail, before, after)
            for lead, befores in _BEFORE.items()
            for trail, afters in _AFTER.items()
            for before in befores
            for after in afters
        ]
        for start in range(0, len(self), _CHECKED_CHUNK):
            genes = order[start : start + _CHECKED_CHUNK]
            # Every context for a few genes, one context in turn for every gene.
            self._verify_one(tokenizer, genes, *contexts[(start // _CHECKED_CHUNK) % len(contexts)])
        for i, context in enumerate(contexts[: 4 * len(self)]):
            genes = np.take(order, np.arange(i, i + 8), mode="wrap")
            self._verify_one(tokenizer, genes, *context)
            self._verify_one(tokenizer, genes[:1], *context)

    def _verify_one(
        self,
        tokenizer: Tokenizer,
        genes: NDArray,
        leading: str,
        trailing: str,
        before: str,
        after: str,
    ) -> None:
        space = " " if leading == "space" else ""
        sentence = " ".join(self.gene_names[g] for g in genes)
        text = before + space + sentence + ("." if trailing == "period" else "") + after
        expected = tokenizer.encode(text)
        looked_up = [
            *tokenizer.encode(before),
            *self.encode(genes, leading, trailing).tolist(),
            *tokenizer.encode(after),
        ]
        if looked_up == expected:
            return
        where = next((i for i, (a, b) in enumerate(zip(looked_up, expected, strict=False)) if a != b), 0)
        pieces = [tokenizer.piece(t) for t in expected[max(0, where - 2) : where + 3]]
        raise ValueError(
            f"the gene→token table is not exact with this tokenizer ({tokenizer.fingerprint[:12]}): a "
            f"sentence of {len(genes)} genes in the form {leading}/{trailing} differs at token {where}, near "
            f"the pieces {pieces}. Tokenizers that merge across spaces or normalise text are not supported."
        )

    def save(self, path: str | Path) -> None:
        """Write the table as ``.npz``, with the tokenizer's fingerprint and a hash of the gene names."""
        np.savez_compressed(
            Path(path),
            tokens=self._tokens,
            offsets=self._offsets,
            fingerprint=np.array(self.fingerprint),
            genes=np.array(_hash_names(self.gene_names)),
        )

    @classmethod
    def load(cls, path: str | Path, tokenizer: Tokenizer, gene_names: Sequence[str]) -> "GeneTokenTable":
        """Read a saved table.

        Raises
        ------
        ValueError
            If it was built with another tokenizer or for other genes.
        """
        with np.load(Path(path), allow_pickle=False) as data:
            fingerprint, genes = str(data["fingerprint"]), str(data["genes"])
            tokens, offsets = data["tokens"], data["offsets"]
        if fingerprint != tokenizer.fingerprint:
            raise ValueError(
                f"{path} was built with tokenizer {fingerprint[:12]}, not with {tokenizer.fingerprint[:12]}: rebuild it"
            )
        if genes != _hash_names(gene_names):
            raise ValueError(f"{path} was built for another list of genes: rebuild it")
        return cls(gene_names, tokens, offsets, fingerprint)


def _ragged(gene_ids: ArrayLike, indptr: ArrayLike) -> tuple[NDArray, NDArray[np.int64]]:
    """Both as the loops take them, which look up without checks."""
    genes, pointers = np.asarray(gene_ids).reshape(-1), np.ascontiguousarray(indptr, dtype=np.int64)
    if pointers[0] < 0 or pointers[-1] > genes.size or (np.diff(pointers) < 0).any():
        raise ValueError(f"indptr must rise from 0 or more to at most {genes.size}, the number of genes")
    return np.ascontiguousarray(genes, dtype=np.int32 if genes.dtype == np.int32 else np.int64), pointers


def _hash_names(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
