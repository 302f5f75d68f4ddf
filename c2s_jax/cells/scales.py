"""On which scale expression values are, and how they become log10(1 + normalised)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from .errors import CellDataError

Recorded = float | Literal["absent"] | None
Scale = Literal["auto", "counts", "normalized", "log1p", "log10p"]

SCALES = ("auto", "counts", "normalized", "log1p", "log10p")
# log2(1 + 10^9); a logarithm of expression is never above it, so larger values are not logged
_LARGEST_LOG = 30.0
_PROBE_CELLS = 64
_ENOUGH_RATIOS = 50
# of the ratios of a probe, how many must be whole numbers to decide the scale
_MOSTLY = 0.9


@dataclass(frozen=True)
class SourceScale:
    """What the values read are: counts, normalised, or log_base(1 + normalised), and why that is believed."""

    name: Literal["counts", "normalized", "log"]
    base: float = np.e
    why: str = "as told"

    @property
    def text(self) -> str:
        """The scale in words."""
        return f"log{_base_name(self.base)}(1 + normalised)" if self.name == "log" else self.name


def _base_name(base: float) -> str:
    return "_e" if np.isclose(base, np.e) else f"{base:g}"


def find_scale(matrix: sparse.csr_matrix, asked: Scale, log1p_base: Recorded) -> SourceScale:
    """The scale of `matrix`, as asked or from the values.

    Evidence, in this order: whole numbers are counts; a base that scanpy's `log1p` recorded is believed if
    the values can be logarithms; in a cell that was divided by its size, linear values are whole multiples of
    the smallest one, so the transformation that makes them so is the right one; otherwise values up to 30 are
    taken for natural logarithms and larger ones for normalised expression.

    Parameters
    ----------
    log1p_base
        `adata.uns["log1p"]["base"]` (None: natural), or "absent".
    """
    if asked not in SCALES:
        raise CellDataError(f"scale must be one of {', '.join(SCALES)}; it is {asked!r}")
    largest = float(matrix.data.max(initial=0))
    recorded = np.e if log1p_base in (None, "absent") else float(log1p_base)
    if asked != "auto":
        return _as_asked(asked, largest, recorded, log1p_base != "absent")
    if matrix.dtype.kind in "iu" or np.array_equal(matrix.data, np.floor(matrix.data)):
        return SourceScale("counts", why="all values are whole numbers")
    if log1p_base != "absent" and largest <= _LARGEST_LOG:
        return SourceScale("log", recorded, "adata.uns['log1p'] says so")
    return _from_ratios(matrix, largest) or _from_size(largest)


def _as_asked(asked: Scale, largest: float, recorded: float, is_recorded: bool) -> SourceScale:
    if asked in ("log1p", "log10p") and largest > _LARGEST_LOG:
        raise CellDataError(
            f"scale={asked!r}, but values go up to {largest:g}, which no logarithm of expression does; "
            "use scale='counts' or scale='normalized'"
        )
    if asked == "log1p":
        why = "as told, base from adata.uns['log1p']" if is_recorded else "as told"
        return SourceScale("log", recorded, why)
    if asked == "log10p":
        return SourceScale("log", 10.0)
    return SourceScale("counts" if asked == "counts" else "normalized")


def _from_ratios(matrix: sparse.csr_matrix, largest: float) -> SourceScale | None:
    candidates = [SourceScale("normalized")]
    if largest <= _LARGEST_LOG:
        candidates += [SourceScale("log", base) for base in (np.e, 10.0, 2.0)]
    shares = [_whole_share(matrix, scale) for scale in candidates]
    best = int(np.argmax(shares))
    if shares[best] < _MOSTLY or sum(share >= _MOSTLY for share in shares) > 1:
        return None
    why = f"so read, {shares[best]:.0%} of values are whole multiples of the smallest in their cell"
    return SourceScale(candidates[best].name, candidates[best].base, why)


def _whole_share(matrix: sparse.csr_matrix, scale: SourceScale) -> float:
    step = max(1, matrix.shape[0] // _PROBE_CELLS)
    probe = matrix[::step][:_PROBE_CELLS].astype(np.float64)
    data = linear(probe.data, scale)
    lengths = np.diff(probe.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    smallest = np.full(len(lengths), np.inf)
    np.minimum.at(smallest, rows, data)
    ratios = data / smallest[rows]
    # near 1 any transformation gives whole numbers, far above it rounding of the file hides them
    ratios = ratios[(ratios > 1.05) & (ratios < 20)]
    if len(ratios) < _ENOUGH_RATIOS:
        return 0.0
    return float(np.mean(np.abs(ratios - np.round(ratios)) < 0.01 * ratios))


def _from_size(largest: float) -> SourceScale:
    if largest <= _LARGEST_LOG:
        return SourceScale("log", np.e, f"values go up to {largest:.3g} and are not whole numbers")
    return SourceScale("normalized", why=f"values go up to {largest:.3g} and are not whole numbers")


def linear(values: np.ndarray, scale: SourceScale) -> np.ndarray:
    """Undo the logarithm, if there is one."""
    return np.expm1(values * np.log(scale.base)) if scale.name == "log" else values


def to_log10(
    matrix: sparse.csr_matrix, scale: SourceScale, target_sum: float | None
) -> tuple[np.ndarray, float | None]:
    """log10(1 + normalised) of each stored value.

    Counts are divided by their cell's total and multiplied by `target_sum` (None: the median total of cells
    with any). Other scales are only converted.

    Returns
    -------
    (values, target)
        float32 [nnz], all above 0; the total that counts were normalised to, else None.
    """
    if scale.name == "log":
        values = (matrix.data * (np.log(scale.base) / np.log(10.0))).astype(np.float32)
        return _positive(values), None
    target = None
    values = matrix.data.astype(np.float32)
    if scale.name == "counts":
        totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
        target = float(np.median(totals[totals > 0])) if target_sum is None else float(target_sum)
        factors = np.divide(target, totals, out=np.zeros_like(totals), where=totals > 0)
        values *= np.repeat(factors.astype(np.float32), np.diff(matrix.indptr))
    np.log1p(values, out=values)
    values *= np.float32(1 / np.log(10.0))
    return _positive(values), target


def _positive(values: np.ndarray) -> np.ndarray:
    # an expressed gene stays expressed even where its value rounds to 0
    return np.maximum(values, np.finfo(np.float32).tiny, out=values)
