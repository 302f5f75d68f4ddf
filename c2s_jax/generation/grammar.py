"""Gene lists only: real names, none twice, exactly k or at most k, ended as a response of the training format.

The names' tokens form tries on the device. A row walks them: ``node`` is where it stands within a name, ``left`` counts
for each node the sequences below whose gene is unused, so that a prefix with nothing left below is closed before
anyone enters it. Candidates are compared within the tokens that occur in names, not within the vocabulary: the rest of
the output table is not even multiplied.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from c2s_jax.generation.gene_trie import Forms, build_trie
from c2s_jax.generation.sampling import NEVER
from c2s_jax.text import GeneTokenTable

ANOTHER, END = 0, 1  # columns of ``ends``


class Walk(NamedTuple):
    """Where B rows stand: node within a name (0: before the first), genes named, how many may be, and what is left."""

    node: Int[Array, "B"]
    named: Int[Array, "B"]
    limit: Int[Array, "B"]
    used: Bool[Array, "B G"]
    left: Int[Array, "B X"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["symbols", "symbol", "first", "degree", "ends", "paths", "first_symbols", "counts", "limits", "end"],
    meta_fields=["roots", "width", "fan_out", "n_genes"],
)
@dataclasses.dataclass(frozen=True)
class GeneGrammar:
    """Which tokens may continue a gene list; for ``Sampler(..., grammar=...)``. Build with `GeneGrammar.build`.

    The arrays are those of ``gene_trie.Trie``; ``limits`` are the numbers of genes, one for all prompts (0-d) or one a
    prompt [N]; ``end`` is the symbol of the token that ends the sequence.
    """

    symbols: Int[Array, "U"]
    symbol: Int[Array, "X"]
    first: Int[Array, "X"]
    degree: Int[Array, "X"]
    ends: Int[Array, "X 2"]
    paths: Int[Array, "G P"]
    first_symbols: Int[Array, "R G 2"]
    counts: Int[Array, "X"]
    limits: Int[Array, "..."]
    end: Int[Array, ""]
    roots: tuple[int, int, int, int]
    width: int
    fan_out: int
    n_genes: int

    @classmethod
    def build(
        cls,
        table: GeneTokenTable,
        end_id: int,
        *,
        genes: ArrayLike | None = None,
        exactly: int | None = None,
        at_most: int | None = None,
        leading: str = "space",
        trailing: str = "period",
    ) -> "GeneGrammar":
        """Make the grammar of lists of some genes.

        Parameters
        ----------
        table
            Tokens of the genes' names, of the model's tokenizer.
        end_id
            The token that ends an answer; one of the sampler's ``stop_ids``.
        genes
            Ids in ``table`` of the genes that may be named; by default all.
        exactly, at_most
            How many genes a list has; give one, or neither for as many as the model likes. See `with_genes` for
            numbers of their own for the prompts.
        leading, trailing
            Whether a space stands before the first name ("space" or "bare"), and whether a period follows the last
            ("period" or "plain"), as in `GeneTokenTable.encode`.

        Raises
        ------
        ValueError
            If there are no genes, fewer than are asked for, or names that cannot be told apart by their tokens.
        """
        ids = np.arange(len(table)) if genes is None else np.unique(np.asarray(genes, np.int64))
        if exactly is not None and at_most is not None:
            raise ValueError(f"give exactly={exactly} or at_most={at_most}, not both")
        names = [table.gene_names[i] for i in ids]
        middle, last = Forms.of(table, ids, "space", "plain"), Forms.of(table, ids, "space", trailing)
        open_ended = exactly is None
        inside = [(middle, ANOTHER), *([(last, END)] if open_ended else [])]
        roots = [inside, [(last, END)]]
        if leading != "space":
            opening, only = Forms.of(table, ids, leading, "plain"), Forms.of(table, ids, leading, trailing)
            roots += [[(opening, ANOTHER), *([(only, END)] if open_ended else [])], [(only, END)]]
        if not len(ids):
            raise ValueError("a gene grammar needs at least one gene")
        trie = build_trie(roots, len(ids), names, [end_id])
        inner = set(trie.symbols[trie.symbol[1 + trie.width * len(roots) :]].tolist())
        following = {int(t) for forms, _ in (*roots[0], *roots[1]) for t in forms.dense()[:, 0]}
        if end_id in inner | following:
            raise ValueError(f"token {end_id} is part of a name and cannot end a list")
        if clash := inner & following:
            raise ValueError(f"token {min(clash)} both begins a name and continues one: names have no clear end")
        at = (*trie.roots, *trie.roots)[:4]  # without forms of its own, the first name has those of the others
        arrays = {name: jnp.asarray(getattr(trie, name)) for name in _ARRAYS}
        grammar = cls(
            **arrays,
            counts=jnp.asarray(trie.counts()),
            limits=jnp.asarray(len(ids), jnp.int32),
            end=jnp.asarray(int(np.flatnonzero(trie.symbols == end_id)[0]), jnp.int32),
            roots=(at[0], at[1], at[2], at[3]),
            width=trie.width,
            fan_out=max(1, int(trie.degree.max())),
            n_genes=len(ids),
        )
        if exactly is not None:
            return grammar.with_genes(exactly)
        return grammar if at_most is None else grammar.with_genes(min(at_most, len(ids)))

    def with_genes(self, numbers: int | Sequence[int] | NDArray) -> "GeneGrammar":
        """The same with other numbers of genes: one for all prompts, or one a prompt.

        Raises
        ------
        ValueError
            If a number is below 1 or above the number of genes.
        """
        limits = np.asarray(numbers, np.int32)
        if limits.ndim > 1 or (limits < 1).any() or (limits > self.n_genes).any():
            raise ValueError(
                f"a list has at least 1 and at most {self.n_genes} genes, the grammar's; asked for {limits.min()} to "
                f"{limits.max()}"
            )
        return dataclasses.replace(self, limits=jnp.asarray(limits))

    def of_prompts(self, prompts: NDArray[np.int64]) -> "GeneGrammar":
        """The grammar of some of the prompts, by number."""
        return dataclasses.replace(self, limits=self.limits[prompts]) if self.limits.ndim else self

    def start(self, rows: int) -> Walk:
        """Rows that have named nothing."""
        limits = jnp.broadcast_to(jnp.repeat(self.limits, rows // max(1, self.limits.size)), (rows,))
        zeros = jnp.zeros((rows,), jnp.int32)
        used = jnp.zeros((rows, self.n_genes), bool)
        return Walk(zeros, zeros, limits, used, jnp.broadcast_to(self.counts, (rows, len(self.counts))))

    def table(self, output_table: Array) -> Array:
        """Rows of the output table of the tokens that occur."""
        return output_table[self.symbols]

    def candidates(self, walk: Walk, logits: Float[Array, "B U"]) -> Float[Array, "B C"]:
        """First symbols of a next name, then the node's children, then the end."""
        leaving, gene, root = self._next_name(walk)
        rows = jnp.arange(len(walk.node))
        per_root = [walk.left[:, at : at + self.width] for at in self.roots]
        left = jnp.select([root[:, None] == i for i in range(3)], per_root[:3], per_root[3])
        # The gene that ends here is not used before the next begins; what it leaves must not count.
        own = self.first_symbols[jnp.minimum(root, self.first_symbols.shape[0] - 1), gene]
        own = jnp.where((walk.node > 0)[:, None], own, -1)
        for column in (ANOTHER, END):
            left = left - (jnp.arange(self.width) == own[:, column, None])
        begin = jnp.where(leaving[:, None] & (left > 0), logits[:, : self.width], NEVER)
        children = self.first[walk.node][:, None] + jnp.arange(self.fan_out)
        inside = jnp.arange(self.fan_out) < self.degree[walk.node][:, None]
        open_ = inside & (jnp.take_along_axis(walk.left, children, axis=1, mode="clip") > 0)
        symbols = self.symbol.at[children].get(mode="clip")
        go_on = jnp.where(open_, jnp.take_along_axis(logits, symbols, axis=1), NEVER)
        last = self.ends[walk.node, END]
        may_end = (last >= 0) & ~walk.used[rows, last]
        end = jnp.where(may_end, jnp.take(logits, self.end, axis=1), NEVER)
        return jnp.concatenate([begin, go_on, end[:, None]], axis=1)

    def take(self, walk: Walk, index: Int[Array, "B"], live: Bool[Array, "B"]) -> tuple[Int[Array, "B"], Walk]:
        """Token of the candidate chosen, and the walk after it."""
        _, gene, root = self._next_name(walk)
        begins, ends = index < self.width, index == self.width + self.fan_out
        base = jnp.asarray(self.roots)[root]
        node = jnp.where(begins, base + index, self.first[walk.node] + index - self.width)
        node = jnp.where(ends, walk.node, node)
        token = self.symbols[jnp.where(ends, self.end, self.symbol.at[node].get(mode="clip"))]
        named = live & ((begins & (walk.node > 0)) | ends)
        gene = jnp.where(ends, self.ends[walk.node, END], gene)
        return token, self._name(walk, gene, named)._replace(node=jnp.where(live, node, walk.node))

    def _name(self, walk: Walk, gene: Array, named: Array) -> Walk:
        """The walk after a gene was named in some rows."""
        rows = jnp.arange(len(gene))
        paths = jnp.where(named[:, None], self.paths[gene], walk.left.shape[1])
        return walk._replace(
            named=walk.named + named,
            used=walk.used.at[rows, jnp.where(named, gene, self.n_genes)].set(True, mode="drop"),
            left=walk.left.at[rows[:, None], paths].add(-1, mode="drop"),
        )

    def _next_name(self, walk: Walk) -> tuple[Array, Array, Array]:
        """Whether a name may begin after this node, the gene that then ends here, and the root it begins at."""
        at_start, gene = walk.node == 0, self.ends[walk.node, ANOTHER]
        begun = walk.named + ~at_start  # names begun before the next
        unused = (gene >= 0) & ~walk.used[jnp.arange(len(gene)), gene]
        leaving = (at_start | unused) & (begun < walk.limit)
        root = jnp.where(begun == walk.limit - 1, 1, 0) + jnp.where(at_start, 2, 0)
        return leaving, gene, root


_ARRAYS = ("symbols", "symbol", "first", "degree", "ends", "paths", "first_symbols")
