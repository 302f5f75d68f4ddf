"""The line between a gene's rank in a cell and its expression, and expression from ranks alone.

Cell2Sentence-Scale (Rizvi et al. 2025, doi:10.1101/2025.04.14.648850) and its reference library fit, for each
data set, expression = slope · log10(1 + rank) + intercept, with expression = log10(1 + normalised) and rank 0
for the first gene of a cell.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import anndata as ad
import numpy as np
from scipy import sparse

from .errors import CellDataError
from .expression import Expression, expression_matrix
from .ranking import Ranked, Ties
from .sentences import repair_sentence
from .vocabulary import GeneVocabulary, as_vocabulary

MAX_LOG_RANK = 3.0


@dataclass(frozen=True)
class RankExpression:
    """Expression as a line in log10(1 + rank).

    Attributes
    ----------
    slope, intercept
        Least squares over the expressed genes of all cells with log10(1 + rank) < `max_log_rank`.
    r2
        1 − SS_residual / SS_total over those `n` entries.
    r2_all
        The same over all `n_all` expressed genes, of any rank (absent genes, which are 0 on both sides, are
        not counted; the line is not clipped). This is what the reference library calls R².
    pearson, spearman
        Correlation of expression with the line, over all `n_all` entries.
    """

    slope: float
    intercept: float
    r2: float
    r2_all: float
    n: int
    pearson: float
    spearman: float
    n_all: int
    max_log_rank: float = MAX_LOG_RANK

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers, for JSON; `RankExpression(**d)` takes them back."""
        return asdict(self)

    def expression(self, ranks: np.ndarray | Sequence[int]) -> np.ndarray:
        """Expression, log10(1 + normalised), of genes at `ranks` (0 is the first); float32, never below 0."""
        line = self.slope * np.log10(1.0 + np.asarray(ranks, np.float64)) + self.intercept
        return np.maximum(line, 0).astype(np.float32)

    def reconstruct(
        self,
        genes: Ranked | Iterable[np.ndarray | Sequence[int] | Sequence[str] | str],
        vocabulary: GeneVocabulary | Iterable[str],
    ) -> sparse.csr_matrix:
        """Expression of cells of which only the order of genes is known.

        Parameters
        ----------
        genes
            One entry a cell: gene ids or gene names by rank, or a cell sentence, which is repaired first. Or
            `Ranked`.
        vocabulary
            The G genes; the columns of the result.

        Returns
        -------
        scipy.sparse.csr_matrix
            float32 [C, G], log10(1 + normalised); absent genes are 0, columns sorted, no stored zeros.

        Raises
        ------
        CellDataError
            If an id is out of range or a gene is twice in a cell (repair the sentence first).
        """
        if isinstance(genes, str):
            raise CellDataError("reconstruct takes one entry a cell: put the sentence into a list")
        vocabulary = as_vocabulary(vocabulary)
        if isinstance(genes, Ranked):
            ranked = genes
        else:
            ranked = _ragged([_cell_ids(cell, vocabulary) for cell in genes])
        _check_ids(ranked, vocabulary)
        entries = (self.expression(ranked.ranks), ranked.genes, ranked.indptr)
        matrix = sparse.csr_matrix(entries, shape=(len(ranked), len(vocabulary)), copy=True)
        matrix.sort_indices()
        matrix.eliminate_zeros()
        return matrix


def _cell_ids(cell: Any, vocabulary: GeneVocabulary) -> np.ndarray:
    if isinstance(cell, str):
        return vocabulary.ids(repair_sentence(cell, vocabulary)[0])
    if len(cell) and isinstance(cell[0], str):
        return vocabulary.ids(cell)
    return np.asarray(cell, dtype=np.int32)


def _ragged(cells: list[np.ndarray]) -> Ranked:
    indptr = np.cumsum([0, *map(len, cells)], dtype=np.int64)
    flat = np.concatenate(cells) if cells else np.zeros(0, np.int32)
    return Ranked(indptr, flat.astype(np.int32), np.zeros(len(flat), np.float32))


def _check_ids(ranked: Ranked, vocabulary: GeneVocabulary) -> None:
    rows = np.repeat(np.arange(len(ranked)), np.diff(ranked.indptr))
    outside = np.flatnonzero((ranked.genes < 0) | (ranked.genes >= len(vocabulary)))
    if len(outside):
        at = outside[0]
        raise CellDataError(
            f"cell {rows[at]} has gene id {ranked.genes[at]}, "
            f"but the vocabulary has {len(vocabulary)} genes: the ids are of another vocabulary"
        )
    entries = np.sort(rows * len(vocabulary) + ranked.genes)
    twice = entries[1:][entries[1:] == entries[:-1]]
    if len(twice):
        cell, gene = divmod(int(twice[0]), len(vocabulary))
        raise CellDataError(
            f"cell {cell} has gene {vocabulary.names[gene]} more than once; repair_sentence merges repetitions"
        )


def fit_rank_expression(
    cells: ad.AnnData | Expression | Ranked,
    *,
    max_log_rank: float = MAX_LOG_RANK,
    ties: Ties = "hash",
    seed: int = 0,
    max_cells: int | None = None,
    **expression: Any,
) -> RankExpression:
    """Fit expression = slope · log10(1 + rank) + intercept by least squares.

    Parameters
    ----------
    cells
        An AnnData (read by `expression_matrix` with the further keyword arguments), its `Expression`, or
        `Ranked` cells whose values are log10(1 + normalised).
    max_log_rank
        Fit entries with log10(1 + rank) below this; 3 is the first 999 genes of a cell.
    ties, seed
        See `rank_cells`.
    max_cells
        Fit on that many cells drawn without replacement, keyed by `seed`; None: on all.

    Raises
    ------
    CellDataError
        If fewer than two ranks are there or expression does not vary.
    """
    if isinstance(cells, Ranked):
        ranked = cells
    else:
        source = cells if isinstance(cells, Expression) else expression_matrix(cells, **expression)
        ranked = source.rank(ties=ties, seed=seed)
    x, y = np.log10(1.0 + ranked.ranks), ranked.values.astype(np.float64)
    if max_cells is not None and max_cells < len(ranked):
        draw = np.random.Generator(np.random.Philox(key=seed)).choice(len(ranked), max_cells, replace=False)
        drawn = np.zeros(len(ranked), bool)
        drawn[draw] = True
        keep = np.repeat(drawn, np.diff(ranked.indptr))
        x, y = x[keep], y[keep]
    return _fit(x, y, max_log_rank)


def _fit(x: np.ndarray, y: np.ndarray, max_log_rank: float) -> RankExpression:
    inside = x < max_log_rank
    xs, ys = x[inside], y[inside]
    if len(xs) < 2 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        raise CellDataError(
            f"rank and expression cannot be related: of {len(xs)} expressed genes with log10(1 + rank) < "
            f"{max_log_rank:g}, rank or expression does not vary; cells need genes of different expression"
        )
    dx = xs - xs.mean()
    slope = float(dx @ ys / (dx @ dx))
    intercept = float(ys.mean() - slope * xs.mean())
    from scipy.stats import rankdata  # a second to import, in each worker of a build

    pearson = _pearson(x, y) * float(np.sign(slope))
    # the line falls or rises strictly with rank, so ranking it is ranking x
    spearman = _pearson(rankdata(x), rankdata(y)) * float(np.sign(slope))
    r2, r2_all = (_r2(t, v, slope, intercept) for t, v in ((xs, ys), (x, y)))
    return RankExpression(slope, intercept, r2, r2_all, len(xs), pearson, spearman, len(x), max_log_rank)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    # np.corrcoef makes several copies of both
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _r2(x: np.ndarray, y: np.ndarray, slope: float, intercept: float) -> float:
    residual = y - (slope * x + intercept)
    centred = y - y.mean()
    return float(1 - (residual @ residual) / (centred @ centred))
