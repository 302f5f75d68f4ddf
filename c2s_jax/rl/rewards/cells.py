"""Rewards that compare generated cells with real ones of the same condition."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.data import reconstruct
from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.data.permute import below, keys
from c2s_jax.encoders.cells import load_cell_encoder
from c2s_jax.rl.rewards.base import Completions, Reward, World

CONDITION = ("cell_type", "perturbation", "dose", "time")
DRAW = 1  # what is drawn with a completion's key


def cell_mse(
    world: World,
    *,
    genes: str = "",
    condition: Sequence[str] = CONDITION,
    real: Literal["drawn", "mean"] = "drawn",
    encoder: str = "",
) -> Reward:
    """Minus the mean squared difference from a real cell of the same condition: of expression, or of embeddings.

    Parameters
    ----------
    genes
        Which genes are compared, see ``chosen_genes``; by default all.
    condition
        Fields in which cells agree that are of the same condition.
    real
        ``"drawn"``: from one real cell of the condition, drawn for each completion; ``"mean"``: the mean over all
        real cells of the condition, which has the same expectation and no noise of drawing.
    encoder
        Folder of an scGPT: cells, on the chosen genes, are compared in its embedding, as the paper does. By default
        their expression is.

    Notes
    -----
    A generated cell's expression is read off its data set's rank→expression line (log10 scale), absent genes are 0.
    """
    if real not in ("drawn", "mean"):
        raise ValueError(f'cell_mse: real={real!r} must be "drawn" or "mean"')
    real_cells = RealCells(world, chosen_genes(world.corpus, genes), condition, encoder)

    def reward(completions: Completions) -> NDArray[np.float64]:
        made = real_cells.represent(real_cells.reconstruct(completions), completions.numbers)
        if real == "mean":
            return -real_cells.mean_squared(made, completions.cells)
        drawn = real_cells.draw(completions.cells, keys(world.seed, DRAW, completions.numbers))
        return -np.square(made - real_cells.represented(drawn), dtype=np.float64).mean(axis=1)

    return reward


def gene_set_score(world: World, *, genes: str, sign: float = 1.0) -> Reward:
    """Mean expression of some genes less that of the cell's other genes, in a generated cell; ``sign`` -1 for low.

    The score of Tirosh et al. 2016 (doi:10.1126/science.aad0501) with all other genes as the control set.
    """
    inside = chosen_genes(world.corpus, genes)
    every = RealCells(world, np.arange(len(world.corpus.genes)), ())

    def reward(completions: Completions) -> NDArray[np.float64]:
        made = every.reconstruct(completions)
        of_set = made[:, inside].mean(1)
        rest = (made.sum(1) - made[:, inside].sum(1)) / max(made.shape[1] - len(inside), 1)
        return sign * (of_set - rest)

    return reward


class RealCells:
    """Expression of the cells of a split on some genes, by condition.

    Parameters
    ----------
    world
        Whose split.
    genes
        Their ids, int [g].
    condition
        Fields in which cells of one condition agree.
    encoder
        Folder of an scGPT that represents cells; without one their expression does.
    """

    def __init__(self, world: World, genes: NDArray[np.integer], condition: Sequence[str], encoder: str = ""):
        self.world, self.genes = world, np.asarray(genes)
        self._names = [world.corpus.genes.names[i] for i in self.genes.tolist()]
        self._encoder = load_cell_encoder(encoder) if encoder else None
        cells = world.corpus.cells(world.split)
        self._cells, self._datasets = cells, cells.dataset_ids
        columns = [cells.field_codes(field)[0] for field in condition] or [np.zeros(len(cells), np.int32)]
        _, self._condition = np.unique(np.stack(columns), axis=1, return_inverse=True)
        self._condition = self._condition.reshape(-1)
        self._order = np.argsort(self._condition, kind="stable")
        self._starts = np.searchsorted(self._condition[self._order], np.arange(self._condition.max() + 2))
        self._moments: dict[int, tuple[NDArray, float]] = {}

    @property
    def count(self) -> int:
        """Cells of the split."""
        return len(self._order)

    def by_condition(self, cells: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Numbers of the conditions of some cells, and which of these are of each."""
        conditions = self._condition[cells]
        for number in np.unique(conditions).tolist():
            yield number, np.flatnonzero(conditions == number)

    def of_condition(self, number: int) -> NDArray[np.int64]:
        """The cells of a condition."""
        return self._order[self._starts[number] : self._starts[number + 1]]

    def draw(self, cells: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """A cell of the same condition for each of some cells, drawn by its key."""
        start, end = (self._starts[self._condition[cells] + i] for i in (0, 1))
        return self._order[start + below(end - start, key, DRAW)]

    def expression(self, cells: NDArray[np.integer]) -> NDArray[np.float32]:
        """Measured log10 expression [n, g] of some cells."""
        return self._cells.take(cells).matrix(len(self.world.corpus.genes))[:, self.genes].toarray()

    def reconstruct(self, completions: Completions) -> NDArray[np.float32]:
        """Expression [N, g] of generated cells, by the rank→expression line of the data set they were asked for."""
        return reconstruct(self.world.corpus, completions.genes, self._datasets[completions.cells], self.genes)

    def represent(self, expression: NDArray[np.float32], names: NDArray) -> NDArray[np.float32]:
        """What cells [n, g] are compared by, [n, D]; what is random about it hangs on their names."""
        if self._encoder is None:
            return expression
        return self._encoder.encode(sparse.csr_matrix(expression), self._names, [str(name) for name in names])

    def represented(self, cells: NDArray[np.integer]) -> NDArray[np.float32]:
        """The same of real cells."""
        return self.represent(self.expression(cells), self._cells.cell_ids(cells) if self._encoder else cells)

    def mean_squared(self, made: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean over dimensions, and over all cells of the condition of each of ``cells``, of the squared difference."""
        out = np.empty(len(made))
        for number, rows in self.by_condition(cells):
            mean, squares = self._moment(number)
            out[rows] = np.mean(made[rows] * (made[rows] - 2 * mean), axis=1, dtype=np.float64) + squares
        return out

    def _moment(self, number: int) -> tuple[NDArray, float]:
        """Mean of a condition's cells [D], and the mean over cells and dimensions of their squares."""
        if number not in self._moments:
            cells = self.represented(self.of_condition(number))
            self._moments[number] = (cells.mean(0), float(np.mean(cells.astype(np.float64) ** 2)))
        return self._moments[number]
