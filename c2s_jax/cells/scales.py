"""On which scale expression values are, and how they become log10(1 + normalised)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .errors import CellDataError
from .statistics import CellStatistics

Recorded = float | Literal["absent"] | None
Scale = Literal["auto", "counts", "normalized", "log1p", "log2p", "log10p"]

SCALES = ("auto", "counts", "normalized", "log1p", "log2p", "log10p")
# log2(1 + 10^9); a logarithm of expression is never above it, so larger values are not logged
_LARGEST_LOG = 30.0
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


def find_scale(statistics: CellStatistics, asked: Scale, log1p_base: Recorded) -> SourceScale:
    """The scale of a data set, as asked or from its values.

    Evidence, in this order: whole numbers are counts; a base that scanpy's `log1p` recorded is believed if
    the values can be logarithms; in a cell that was divided by its size, linear values are whole multiples of
    the smallest one, so the transformation that makes them so is the right one; otherwise values up to 30 are
    taken for natural logarithms and larger ones for normalised expression.

    Parameters
    ----------
    log1p_base
        `adata.uns["log1p"]["base"]` (None: natural), or "absent".
    """
    largest = statistics.largest
    recorded = np.e if log1p_base in (None, "absent") else float(log1p_base)
    if asked != "auto":
        return _as_asked(asked, largest, recorded, log1p_base != "absent")
    if statistics.whole:
        return SourceScale("counts", why="all values are whole numbers")
    if log1p_base != "absent" and largest <= _LARGEST_LOG:
        return SourceScale("log", recorded, "adata.uns['log1p'] says so")
    return _from_ratios(statistics, largest) or _from_size(largest)


def _as_asked(asked: Scale, largest: float, recorded: float, is_recorded: bool) -> SourceScale:
    if asked in ("log1p", "log2p", "log10p") and largest > _LARGEST_LOG:
        raise CellDataError(
            f"scale={asked!r}, but values go up to {largest:g}, which no logarithm of expression does; "
            "use scale='counts' or scale='normalized'"
        )
    if asked == "log1p":
        why = "as told, base from adata.uns['log1p']" if is_recorded else "as told"
        return SourceScale("log", recorded, why)
    if asked in ("log2p", "log10p"):
        return SourceScale("log", 2.0 if asked == "log2p" else 10.0)
    return SourceScale("counts" if asked == "counts" else "normalized")


def _from_ratios(statistics: CellStatistics, largest: float) -> SourceScale | None:
    candidates = [SourceScale("normalized")]
    if largest <= _LARGEST_LOG:
        candidates += [SourceScale("log", base) for base in (np.e, 10.0, 2.0)]
    shares = [_whole_share(statistics, scale) for scale in candidates]
    best = int(np.argmax(shares))
    if shares[best] < _MOSTLY or sum(share >= _MOSTLY for share in shares) > 1:
        return None
    why = f"so read, {shares[best]:.0%} of values are whole multiples of the smallest in their cell"
    return SourceScale(candidates[best].name, candidates[best].base, why)


def _whole_share(statistics: CellStatistics, scale: SourceScale) -> float:
    data = linear(statistics.probe_values, scale)
    rows = np.repeat(np.arange(len(statistics.probe_lengths)), statistics.probe_lengths)
    smallest = np.full(len(statistics.probe_lengths), np.inf)
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


def median_total(totals: np.ndarray) -> float:
    """The median of the totals above 0; 0 where there are none."""
    there = totals[totals > 0]
    return float(np.median(there)) if len(there) else 0.0


def to_log10(
    values: np.ndarray, lengths: np.ndarray, scale: SourceScale, totals: np.ndarray, target_sum: float | None
) -> np.ndarray:
    """log10(1 + normalised) of expressed genes, float32 [N], all above 0.

    Parameters
    ----------
    values
        [N], cell by cell.
    lengths
        [C]; values of each cell.
    scale
        Of the values. Counts are divided by their cell's total and multiplied by `target_sum`; other scales are only
        converted.
    totals
        float64 [C].
    """
    if scale.name == "log":
        return _positive((values * (np.log(scale.base) / np.log(10.0))).astype(np.float32))
    values = values.astype(np.float32)
    if scale.name == "counts":
        assert target_sum is not None
        factors = np.divide(target_sum, totals, out=np.zeros_like(totals), where=totals > 0)
        values *= np.repeat(factors.astype(np.float32), lengths)
    np.log1p(values, out=values)
    values *= np.float32(1 / np.log(10.0))
    return _positive(values)


def _positive(values: np.ndarray) -> np.ndarray:
    # an expressed gene stays expressed even where its value rounds to 0
    return np.maximum(values, np.finfo(np.float32).tiny, out=values)
