"""From values as read to log10(1 + normalised) expression, block by block."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from .errors import CellDataError
from .genes import GeneColumns
from .scales import SCALES, Scale, SourceScale, find_scale, linear, median_total, to_log10
from .statistics import CellStatistics


@dataclass(frozen=True)
class Conversion:
    """How every block of a data set is converted.

    Attributes
    ----------
    columns
        Names of the columns as read.
    scale
        Of the values as read.
    target_sum
        Total that counts are normalised to; None on other scales.
    """

    columns: GeneColumns
    scale: SourceScale
    target_sum: float | None

    @property
    def merged_scale(self) -> SourceScale:
        """Scale once columns of one name are added up, which undoes a logarithm first."""
        if self.columns.place is None or self.scale.name != "log":
            return self.scale
        return SourceScale("normalized", why=f"after undoing {self.scale.text}: {self.scale.why}")

    def merged(self, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        """Values to rank, CSR [C, names]: as read, columns of one name added up on the linear scale."""
        if self.columns.place is not None and self.scale.name == "log":
            matrix = matrix.astype(np.float64)
            matrix.data = linear(matrix.data, self.scale)
        return self.columns.merged(matrix)

    def log10(self, merged: sparse.csr_matrix, totals: np.ndarray) -> np.ndarray:
        """log10(1 + normalised) of each entry of what `merged` returned, float32 [nnz].

        `totals` are those of `CellStatistics`.
        """
        lengths = np.diff(merged.indptr)
        return to_log10(merged.data, lengths, self.merged_scale, totals, self.target_sum)

    def sentence(self, name: str, asked: float | None) -> str:
        """What is done to the matrix `name`, for a report; `asked` is the `target_sum` that was asked for."""
        scale = self.merged_scale
        to = f", normalised to a total of {self.target_sum:g} a cell" if self.target_sum is not None else ""
        unused = asked is not None and self.target_sum is None
        but = f"; target_sum={asked:g} is not used, as only counts are normalised" if unused else ""
        return f"adata.{name} is read as {scale.text} ({scale.why}){to}; expression is log10(1 + normalised){but}"


def conversion(
    statistics: CellStatistics,
    totals: np.ndarray,
    columns: GeneColumns,
    *,
    scale: Scale = "auto",
    log1p_base: Any = "absent",
    target_sum: float | None = None,
) -> Conversion:
    """Decide how a data set is converted.

    Parameters
    ----------
    statistics
        Of all its cells.
    totals
        Of the cells over which the default `target_sum`, the median, is taken.
    scale, target_sum
        See `expression_matrix`.
    log1p_base
        See `find_scale`.
    """
    check_choices(scale, target_sum)
    found = find_scale(statistics, scale, log1p_base)
    target = None
    if found.name == "counts":
        target = median_total(totals) if target_sum is None else float(target_sum)
    return Conversion(columns, found, target)


def check_choices(scale: str, target_sum: float | None) -> None:
    """Raise `CellDataError` for what cannot be asked of `conversion`."""
    if scale not in SCALES:
        raise CellDataError(f"scale must be one of {', '.join(SCALES)}; it is {scale!r}")
    if target_sum is not None and not (np.isfinite(target_sum) and target_sum > 0):
        raise CellDataError(f"target_sum must be a positive number, it is {target_sum}")
