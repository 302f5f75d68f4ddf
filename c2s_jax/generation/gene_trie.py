"""Tries over the tokens of gene names, built on the host in numpy."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.text import GeneTokenTable


@dataclasses.dataclass(frozen=True)
class Forms:
    """The token sequences of genes that one trie holds: ragged tokens, and the gene of each sequence."""

    tokens: NDArray[np.int32]
    indptr: NDArray[np.int64]
    genes: NDArray[np.int64]

    @classmethod
    def of(cls, table: GeneTokenTable, genes: NDArray[np.int64], leading: str, trailing: str) -> "Forms":
        """Each gene as a sentence of its own, with these edges."""
        tokens, indptr = table.encode_many(genes, np.arange(len(genes) + 1), leading, trailing)
        return cls(tokens, indptr, np.arange(len(genes)))

    def dense(self) -> NDArray[np.int64]:
        """Tokens [S, L], -1 after a sequence's end."""
        lengths = np.diff(self.indptr)
        out = np.full((len(lengths), int(lengths.max())), -1, np.int64)
        out[np.arange(out.shape[1]) < lengths[:, None]] = self.tokens
        return out


@dataclasses.dataclass(frozen=True)
class Trie:
    """A trie whose children lie side by side, several roots in one numbering.

    Attributes
    ----------
    symbols
        int32 [U], the tokens that occur, ascending among the first tokens of names and among the others.
    roots
        Nodes that begin at each root: root r's child of first symbol j is ``roots[r] + j``, of R first symbols; node 0
        is none.
    width
        R, the number of first symbols.
    symbol, first, degree
        int32 [X]: a node's symbol, its first child and how many children it has.
    ends
        int32 [X, 2]: genes whose name ends at a node with another to follow, and with the sentence's end to follow;
        -1 for none.
    paths
        int32 [G, P], all nodes on the ways to a gene's ends, a node once a sequence, then X.
    first_symbols
        int32 [roots, G, 2], the first symbols of a gene's sequences at each root, -1 for none.
    """

    symbols: NDArray[np.int32]
    roots: tuple[int, ...]
    width: int
    symbol: NDArray[np.int32]
    first: NDArray[np.int32]
    degree: NDArray[np.int32]
    ends: NDArray[np.int32]
    paths: NDArray[np.int32]
    first_symbols: NDArray[np.int32]

    def counts(self) -> NDArray[np.int32]:
        """Sequences through each node, int32 [X]."""
        return np.bincount(self.paths.ravel(), minlength=len(self.symbol) + 1)[:-1].astype(np.int32)


def build_trie(
    roots: Sequence[Sequence[tuple[Forms, int]]], n_genes: int, names: Sequence[str], extra: Sequence[int]
) -> Trie:
    """Build the trie of several roots, each with forms and which of ``Trie.ends`` their ends are.

    ``extra`` are tokens that join the symbols.

    Raises
    ------
    ValueError
        If two genes have the same tokens, or tokens that begin a name also occur within one at the roots that follow a
        name: the sequence would not say where a name ends.
    """
    parts = [(root, end, forms) for root, group in enumerate(roots) for forms, end in group]
    longest = max(forms.dense().shape[1] for *_, forms in parts)
    sequences = np.concatenate(
        [np.pad(f.dense(), ((0, 0), (0, longest - f.dense().shape[1])), constant_values=-1) for *_, f in parts]
    )
    root, end = (np.concatenate([np.full(len(p[2].genes), p[i]) for p in parts]) for i in (0, 1))
    gene = np.concatenate([f.genes for *_, f in parts])
    begin = np.unique(sequences[:, 0])
    others = np.setdiff1d(np.concatenate([sequences[:, 1:].ravel(), extra]), [-1])
    inner = np.setdiff1d(others, begin)
    symbols = np.concatenate([begin, inner])
    order = np.argsort(symbols)
    as_symbols = np.where(sequences < 0, -1, order[np.searchsorted(symbols, sequences, sorter=order) % len(symbols)])
    R = len(begin)
    nodes, symbol, first, degree = _number(as_symbols, root, R, len(roots))
    X, last = len(symbol), (sequences >= 0).sum(axis=1) - 1
    ends = np.full((X, 2), -1, np.int32)
    at = nodes[np.arange(len(nodes)), last]
    _refuse_equal(at * 2 + end, gene, names)
    ends[at, end] = gene
    first_symbols = np.full((len(roots), n_genes, 2), -1, np.int32)
    first_symbols[root, gene, end] = as_symbols[:, 0]
    by_gene = np.argsort(gene, kind="stable")
    each = len(gene) // n_genes
    paths = np.where(nodes < 0, X, nodes)[by_gene].reshape(n_genes, each * longest)
    paths = np.sort(paths, axis=1)[:, : int((paths < X).sum(axis=1).max())]
    starts = tuple(1 + R * r for r in range(len(roots)))
    arrays = dict(
        symbols=symbols,
        symbol=symbol,
        first=first,
        degree=degree,
        ends=ends,
        paths=paths,
        first_symbols=first_symbols,
    )
    return Trie(roots=starts, width=R, **{name: x.astype(np.int32) for name, x in arrays.items()})


def _number(symbols: NDArray, root: NDArray, width: int, n_roots: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Node of every symbol of every sequence [S, L], and of each node its symbol, first child and degree."""
    nodes = np.full(symbols.shape, -1, np.int64)
    nodes[:, 0] = 1 + root * width + symbols[:, 0]
    count = 1 + n_roots * width
    symbol = [np.zeros(1, np.int64), np.tile(np.arange(width), n_roots)]
    parents = [np.full(count, -1, np.int64)]
    for depth in range(1, symbols.shape[1]):
        rows = np.flatnonzero(symbols[:, depth] >= 0)
        key = nodes[rows, depth - 1] * (symbols.max() + 1) + symbols[rows, depth]
        found, where = np.unique(key, return_inverse=True)
        nodes[rows, depth] = count + where
        symbol.append(found % (symbols.max() + 1))
        parents.append(found // (symbols.max() + 1))
        count += len(found)
    parent = np.concatenate(parents)
    real = np.flatnonzero(parent >= 0)
    degree = np.bincount(parent[real], minlength=count)
    first = np.zeros(count, np.int64)
    first[parent[real][::-1]] = real[::-1]
    return nodes, np.concatenate(symbol), first, degree


def _refuse_equal(key: NDArray, gene: NDArray, names: Sequence[str]) -> None:
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    if len(same):
        a, b = (names[gene[order[same[0] + i]]] for i in (0, 1))
        raise ValueError(f"genes {a!r} and {b!r} are written with the same tokens: a list may hold one of them")
