"""Drafts of gene names for speculative decoding: the most frequent unused gene that the begun name can become.

Several drafted tokens are read in one pass of the model. At each of them a token is drawn from the model's own
distribution with the row's own randomness; the draft is kept as long as it is what was drawn. For a draft without
randomness this is speculative sampling (Leviathan et al. 2023, arXiv:2211.17192: accept with probability p(draft),
else draw from what is left), and the tokens are those that would have been drawn one by one.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from c2s_jax.generation.decoding import Vocabulary
from c2s_jax.generation.gene_trie import Forms
from c2s_jax.generation.grammar import ANOTHER, GeneGrammar, Walk
from c2s_jax.text import GeneTokenTable

BELOW = 24  # genes kept below each node
NEXT = 512  # genes kept for a next name


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["grammar", "likely", "next_genes", "pieces", "lengths", "depth", "symbol_of"],
    meta_fields=["width"],
)
@dataclasses.dataclass(frozen=True)
class GeneDrafts:
    """Drafts gene names; for ``Sampler(..., drafts=...)``. Build with `GeneDrafts.build`.

    Attributes
    ----------
    grammar
        The grammar that answers follow, or may follow where they are free.
    likely
        Genes below each node, the most frequent first, then -1.
    next_genes
        The most frequent genes of all.
    pieces, lengths
        Tokens of " NAME" and how many.
    depth
        Tokens of a name up to each node.
    symbol_of
        The grammar's symbol of each token, -1 for none.
    width
        Tokens drafted at once.
    """

    grammar: GeneGrammar
    likely: Int[Array, "X K"]
    next_genes: Int[Array, "M"]
    pieces: Int[Array, "G W"]
    lengths: Int[Array, "G"]
    depth: Int[Array, "X"]
    symbol_of: Int[Array, "V"]
    width: int

    @classmethod
    def build(
        cls,
        table: GeneTokenTable,
        grammar: GeneGrammar,
        frequencies: ArrayLike,
        *,
        genes: ArrayLike | None = None,
        width: int = 4,
        vocab_size: int,
    ) -> "GeneDrafts":
        """Make the drafts of a grammar.

        Parameters
        ----------
        table, genes
            As the grammar was built with.
        grammar
            Answers follow it, or are expected to.
        frequencies
            How often each gene of ``table`` occurs in sentences like those to be written, [len(table)].
        width
            Tokens drafted at once.
        vocab_size
            Rows of the model's table.
        """
        ids = np.arange(len(table)) if genes is None else np.unique(np.asarray(genes, np.int64))
        weights = np.asarray(frequencies, np.float64)[ids]
        if width < 1 or len(ids) != grammar.n_genes:
            raise ValueError(f"need width >= 1, not {width}, and the grammar's {grammar.n_genes} genes, not {len(ids)}")
        forms = Forms.of(table, ids, "space", "plain")
        order = np.argsort(-weights, kind="stable")
        symbols = np.asarray(grammar.symbols)
        symbol_of = np.full(max(vocab_size, int(symbols.max()) + 1), -1, np.int32)
        symbol_of[symbols] = np.arange(len(symbols))
        paths, nodes = np.asarray(grammar.paths), len(grammar.symbol)
        return cls(
            grammar=grammar.with_genes(grammar.n_genes),
            likely=jnp.asarray(_below(paths, nodes, order)),
            next_genes=jnp.asarray(order[:NEXT].astype(np.int32)),
            pieces=jnp.asarray(forms.dense().astype(np.int32)),
            lengths=jnp.asarray(np.diff(forms.indptr).astype(np.int32)),
            depth=jnp.asarray(_depths(grammar)),
            symbol_of=jnp.asarray(symbol_of),
            width=width,
        )

    def propose(self, walk: Walk) -> Int[Array, "B m"]:
        """Tokens that may follow; -1 where nothing is guessed."""
        rows = jnp.arange(len(walk.node))
        at = jnp.arange(self.width)
        inside = walk.node > 0
        gene = self._pick(walk, self.likely[walk.node], [])
        gene = jnp.where(inside, gene, -1)
        done = jnp.where(inside, self.depth[walk.node], 0)
        draft = self._piece(gene, done[:, None] + at)
        filled = jnp.where(gene >= 0, self.lengths[gene] - done, 0)
        known = ~inside | (gene >= 0)  # after a name that nobody knows, nothing is guessed
        taken = [gene]
        for _ in range(self.width):
            gene = jnp.where(known, self._pick(walk, self.next_genes[None].repeat(len(rows), 0), taken), -1)
            later = at >= filled[:, None]
            draft = jnp.where(later, self._piece(gene, at - filled[:, None]), draft)
            filled = filled + jnp.where(gene >= 0, self.lengths[gene], 0)
            taken.append(gene)
        return draft

    def _pick(self, walk: Walk, genes: Int[Array, "B K"], taken: list[Array]) -> Int[Array, "B"]:
        """The first of some genes that is neither used nor in the draft."""
        free = (genes >= 0) & ~jnp.take_along_axis(walk.used, jnp.maximum(genes, 0), axis=1)
        for other in taken:
            free &= genes != other[:, None]
        best = jnp.take_along_axis(genes, jnp.argmax(free, axis=1)[:, None], axis=1)[:, 0]
        return jnp.where(free.any(axis=1), best, -1)

    def _piece(self, gene: Int[Array, "B"], place: Int[Array, "B m"]) -> Int[Array, "B m"]:
        width = self.pieces.shape[1]
        found = jnp.take_along_axis(self.pieces[gene], jnp.clip(place, 0, width - 1), axis=1)
        return jnp.where((gene[:, None] >= 0) & (place >= 0) & (place < width), found, -1)


@partial(jax.tree_util.register_dataclass, data_fields=["drafts"], meta_fields=["vocabulary"])
@dataclasses.dataclass(frozen=True)
class Followed:
    """All tokens, as ``vocabulary`` has them, while the names among them are followed for drafts."""

    drafts: GeneDrafts
    vocabulary: Vocabulary

    def start(self, rows: int) -> Walk:
        """Rows that have named nothing; what is left below the nodes is not needed."""
        return self.drafts.grammar.start(rows)._replace(left=jnp.zeros((rows, 0), jnp.int32))

    def table(self, output_table: Array) -> Array | None:
        """The whole table."""
        return self.vocabulary.table(output_table)

    def candidates(self, walk: Walk, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """The logits."""
        return self.vocabulary.candidates((), logits)

    def take(self, walk: Walk, index: Int[Array, "B"], live: Bool[Array, "B"]) -> tuple[Int[Array, "B"], Walk]:
        """The index is the token; a token that continues no name leads back to before the first."""
        g, symbol = self.drafts.grammar, self.drafts.symbol_of[index]
        children = g.first[walk.node][:, None] + jnp.arange(g.fan_out)
        hits = (jnp.arange(g.fan_out) < g.degree[walk.node][:, None]) & (
            g.symbol.at[children].get(mode="clip") == symbol[:, None]
        )
        goes_on = hits.any(axis=1)
        begins = ~goes_on & (symbol >= 0) & (symbol < g.width)
        root = jnp.where(walk.node == 0, g.roots[2], g.roots[0])
        node = jnp.where(begins, root + symbol, 0)
        node = jnp.where(goes_on, g.first[walk.node] + jnp.argmax(hits, axis=1), node)
        gene = g.ends[walk.node, ANOTHER]
        named = live & begins & (gene >= 0) & ~walk.used[jnp.arange(len(gene)), gene]
        used = walk.used.at[jnp.arange(len(gene)), jnp.where(named, gene, g.n_genes)].set(True, mode="drop")
        return index, walk._replace(node=jnp.where(live, node, walk.node), named=walk.named + named, used=used)


def _depths(grammar: GeneGrammar) -> NDArray[np.int32]:
    """Tokens of a name up to each node."""
    first, degree = np.asarray(grammar.first), np.asarray(grammar.degree)
    depth = np.zeros(len(first), np.int32)
    level = np.arange(1, 1 + grammar.width * len(set(grammar.roots)))
    number = 1
    while len(level):
        depth[level] = number
        counts = degree[level]
        starts = np.repeat(first[level] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        level = starts + np.arange(counts.sum())
        number += 1
    return depth


def _below(paths: NDArray, size: int, order: NDArray) -> NDArray[np.int32]:
    """The first ``BELOW`` genes in ``order`` below each of ``size`` nodes, -1 where there are no more."""
    nodes, genes = paths[order].reshape(-1), np.repeat(order, paths.shape[1])
    nodes, genes = nodes[nodes < size], genes[nodes < size]
    by_node = np.argsort(nodes, kind="stable")
    nodes, genes = nodes[by_node], genes[by_node]
    fresh = np.ones(len(nodes), bool)
    fresh[1:] = (nodes[1:] != nodes[:-1]) | (genes[1:] != genes[:-1])  # both forms of a gene may share a node
    nodes, genes = nodes[fresh], genes[fresh]
    place = np.arange(len(nodes)) - np.searchsorted(nodes, nodes)
    out = np.full((size, BELOW), -1, np.int32)
    kept = place < BELOW
    out[nodes[kept], place[kept]] = genes[kept]
    return out
