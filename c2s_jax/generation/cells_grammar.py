"""Several cells in one answer: "Cell 1:", a line break, a gene list and a period, then the next cell on a new line.

Each list follows the gene grammar, from its start: a gene may stand in every cell, once. Headers are written as they
stand, with no probability lost on them; where a list ends, the model chooses between the end and another gene as it
would at the end of the answer.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from c2s_jax.generation.grammar import GeneGrammar, Walk
from c2s_jax.generation.sampling import NEVER
from c2s_jax.tasks.rendering import cell_header
from c2s_jax.text import GeneTokenTable


class CellsWalk(NamedTuple):
    """Where B rows stand: in the list of the cell at hand, which cell that is, and tokens of its header written."""

    genes: Walk
    cell: Int[Array, "B"]
    place: Int[Array, "B"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["genes", "symbols", "headers", "lengths"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class CellsGrammar:
    """Which tokens may continue the sentences of several cells; for ``Sampler(..., grammar=...)``.

    Build with `CellsGrammar.build`.

    Attributes
    ----------
    genes
        The grammar of one list.
    symbols
        Its tokens, then those of headers.
    headers, lengths
        Symbols of each cell's header, -1 after its end, and how many.
    """

    genes: GeneGrammar
    symbols: Int[Array, "U"]
    headers: Int[Array, "N P"]
    lengths: Int[Array, "N"]

    @classmethod
    def build(cls, tokenizer: Any, table: GeneTokenTable, n_cells: int, **options: Any) -> "CellsGrammar":
        """Make the grammar of so many cells.

        Parameters
        ----------
        tokenizer
            Writes the headers, and ends answers.
        table
            Tokens of the genes' names.
        n_cells
            Cells of each answer.
        **options
            ``genes``, ``exactly`` and ``at_most`` of `GeneGrammar.build`, for the list of each cell.

        Raises
        ------
        ValueError
            As `GeneGrammar.build`; or where a header begins like a name.
        """
        if n_cells < 1:
            raise ValueError(f"an answer has at least one cell, not {n_cells}")
        genes = GeneGrammar.build(table, tokenizer.eos_id, leading="bare", **options)
        texts = [" " + cell_header(0), *map(cell_header, range(1, n_cells))]
        tokens = [np.array(ids, np.int64) for ids in tokenizer.encode_batch(texts)]
        if clash := set(np.asarray(genes.symbols).tolist()) & {int(ids[0]) for ids in tokens[1:]}:
            raise ValueError(f"token {min(clash)} begins a cell and is part of a name: lists have no clear end")
        # Rows of the output table: one a token of a header, whether or not a name has it, too.
        extra, where = np.unique(np.concatenate(tokens), return_inverse=True)
        lengths = np.array([len(ids) for ids in tokens])
        headers = np.full((n_cells, lengths.max()), -1, np.int32)
        headers[np.arange(lengths.max()) < lengths[:, None]] = len(genes.symbols) + where
        symbols = jnp.concatenate([genes.symbols, jnp.asarray(extra, jnp.int32)])
        return cls(genes, symbols, jnp.asarray(headers), jnp.asarray(lengths, jnp.int32))

    @property
    def limits(self) -> Array:
        """Numbers of genes a cell: one for all prompts, or one a prompt."""
        return self.genes.limits

    @property
    def end(self) -> Array:
        """Symbol of the token that ends the sequence."""
        return self.genes.end

    def with_genes(self, numbers: int | Sequence[int] | NDArray) -> "CellsGrammar":
        """The same with other numbers of genes a cell: one for all prompts, or one a prompt."""
        return dataclasses.replace(self, genes=self.genes.with_genes(numbers))

    def of_prompts(self, prompts: NDArray[np.int64]) -> "CellsGrammar":
        """The grammar of some of the prompts, by number."""
        return dataclasses.replace(self, genes=self.genes.of_prompts(prompts))

    def start(self, rows: int) -> CellsWalk:
        """Rows that have written nothing."""
        zeros = jnp.zeros((rows,), jnp.int32)
        return CellsWalk(self.genes.start(rows), zeros, zeros)

    def table(self, output_table: Array) -> Array:
        """Rows of the output table of the tokens that occur."""
        return output_table[self.symbols]

    def candidates(self, walk: CellsWalk, logits: Float[Array, "B U"]) -> Float[Array, "B C"]:
        """Those of a list; the last is its end, or what is certain: a header's next token."""
        found = self.genes.candidates(walk.genes, logits[:, : len(self.genes.symbols)])
        following = jnp.take_along_axis(logits, self._next_header(walk)[:, None], axis=1)[:, 0]
        end = jnp.where((found[:, -1] > NEVER) & self._more(walk), following, found[:, -1])
        last = jnp.arange(found.shape[1]) == found.shape[1] - 1
        found = jnp.where(last, end[:, None], found)
        return jnp.where(self._opening(walk)[:, None], jnp.where(last, 0.0, NEVER), found)

    def take(
        self, walk: CellsWalk, index: Int[Array, "B"], live: Bool[Array, "B"]
    ) -> tuple[Int[Array, "B"], CellsWalk]:
        """Token of the candidate chosen, and the walk after it."""
        opening, rows = self._opening(walk), len(index)
        ends = ~opening & self._more(walk) & (index == self.genes.width + self.genes.fan_out)
        token, genes = self.genes.take(walk.genes, index, live & ~opening)
        token = jnp.where(ends, self.symbols[self._next_header(walk)], token)
        token = jnp.where(opening, self.symbols[self.headers[walk.cell, walk.place]], token)
        again = live & ends
        fresh = self.genes.start(rows)._replace(limit=walk.genes.limit)
        genes = jax.tree.map(lambda a, b: jnp.where(again.reshape(-1, *[1] * (a.ndim - 1)), a, b), fresh, genes)
        place = jnp.where(again, 1, walk.place + (live & opening))
        return token, CellsWalk(genes, walk.cell + again, place)

    def _opening(self, walk: CellsWalk) -> Bool[Array, "B"]:
        return walk.place < self.lengths[walk.cell]

    def _more(self, walk: CellsWalk) -> Bool[Array, "B"]:
        return walk.cell < len(self.lengths) - 1

    def _next_header(self, walk: CellsWalk) -> Int[Array, "B"]:
        return self.headers.at[walk.cell + 1, 0].get(mode="clip")


Grammar = GeneGrammar | CellsGrammar
"""What answers can be held to."""
