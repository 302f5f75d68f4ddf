"""Which names the genes of an AnnData have in cell sentences."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse

from .errors import CellDataError, shown

Duplicates = Literal["error", "sum"]

_ENSEMBL = re.compile(r"^ENS[A-Z]{0,6}[GT]\d{6,}(\.\d+)?$", re.IGNORECASE)
# columns in which CELLxGENE, 10x, scanpy, biomaRt and GEO files keep symbols, most specific first
_SYMBOL_COLUMNS = (
    "feature_name", "gene_symbols", "gene_symbol", "symbol", "symbols", "hgnc_symbol", "mgi_symbol",
    "external_gene_name", "gene_short_name", "gene_name", "gene_names", "feature_names",
)  # fmt: skip
# from this share of Ensembl identifiers on, names are taken for identifiers, not symbols
_MOSTLY = 0.5


def gene_symbols(var: Any, gene_column: str | None, report: list[str]) -> list[str]:
    """Symbols of the genes annotated by `var`, in their case; adds to `report` what was chosen or repaired.

    Raises
    ------
    CellDataError
        If names are Ensembl identifiers and no column has symbols, if `gene_column` is not there, if a name
        is empty or holds white space.
    """
    index = [str(name) for name in var.index]
    if gene_column is None and _ensembl_share(index) >= _MOSTLY:
        gene_column = _symbol_column(var, index)
        report.append(f"var_names are Ensembl identifiers; symbols are taken from var[{gene_column!r}]")
    if gene_column is None:
        names = index
    elif gene_column in var.columns:
        names = _filled(var[gene_column], index, gene_column, report)
    else:
        raise CellDataError(
            f"var has no column {gene_column!r} (gene_column); columns there are: {shown(var.columns, 30) or 'none'}"
        )
    names = [name.strip() for name in names]
    odd = [f"{name!r} (row {i})" for i, name in enumerate(names) if len(name.split()) != 1]
    if odd:
        raise CellDataError(
            f"{len(odd)} gene names are empty or hold white space, which separates genes in a cell sentence: "
            f"{shown(odd)}; rename or drop them, or name another column with gene_column"
        )
    return names


def is_ensembl(name: str) -> bool:
    """Whether `name` is an Ensembl identifier of a gene or transcript."""
    return bool(_ENSEMBL.match(name))


def _ensembl_share(names: list[str]) -> float:
    return sum(map(is_ensembl, names)) / max(1, len(names))


def _symbol_column(var: Any, index: list[str]) -> str:
    by_lower = {str(column).lower(): column for column in var.columns}
    for name in _SYMBOL_COLUMNS:
        column = by_lower.get(name)
        if column is not None:
            values = [str(value) for value in var[column].dropna()]
            if values and _ensembl_share(values) < _MOSTLY:
                return column
    raise CellDataError(
        f"var_names are Ensembl identifiers ({shown(index, 2)}); cell sentences are written in symbols, but "
        f"no column of var is known to hold symbols (columns: {shown(var.columns, 30) or 'none'}); "
        "name it with gene_column=…, or map the identifiers to symbols first"
    )


def _filled(column: Any, index: list[str], name: str, report: list[str]) -> list[str]:
    absent = np.asarray(column.isna()) | np.asarray(column.astype(str).str.strip() == "")
    if absent.any():
        keep = [index[i] for i in np.flatnonzero(absent)]
        report.append(f"{len(keep)} genes without a symbol in var[{name!r}] keep their name: {shown(keep)}")
    return [i if missing else str(s) for i, s, missing in zip(index, column, absent, strict=True)]


@dataclass(frozen=True)
class GeneColumns:
    """The genes of a matrix by upper-cased name, columns of one name taken together.

    Attributes
    ----------
    names
        The G' names, each once, in the order of their first columns.
    place
        int64 [G], the name each column of the matrix has; None where every column has a name of its own.
    """

    names: tuple[str, ...]
    place: np.ndarray | None

    def merged(self, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        """Add up the columns of one name; `matrix` [C, G] is on a linear scale, the result is [C, G']."""
        if self.place is None:
            return matrix
        # sums of small integer types would overflow
        wide = np.float64 if matrix.dtype.kind == "f" else np.int64
        entries = (np.ones(len(self.place), wide), (np.arange(len(self.place)), self.place))
        adder = sparse.csr_matrix(entries, shape=(len(self.place), len(self.names)))
        merged = sparse.csr_matrix(matrix @ adder)
        merged.sort_indices()
        return merged


def gene_columns(given: list[str], duplicates: Duplicates, report: list[str]) -> GeneColumns:
    """Upper-case the gene names `given`, [G].

    Parameters
    ----------
    duplicates
        "error": stop where a symbol occurs more than once. "sum": add up those columns, at the place of the
        first; `report` gets a sentence.
    """
    if duplicates not in ("error", "sum"):
        raise CellDataError(f"duplicates must be 'error' or 'sum', it is {duplicates!r}")
    symbols = [name.upper() for name in given]
    unique = tuple(dict.fromkeys(symbols))
    if len(unique) == len(symbols):
        return GeneColumns(unique, None)
    text = _described(symbols, given)
    if duplicates == "error":
        raise CellDataError(
            f"{text}. Pass duplicates='sum' to add their expression up, or rename them "
            "(adata.var_names_make_unique() for equal names, before adata.raw is set)"
        )
    report.append(f"{text}; their expression is added up")
    place = {name: i for i, name in enumerate(unique)}
    return GeneColumns(unique, np.fromiter((place[name] for name in symbols), np.int64, len(symbols)))


def _described(symbols: list[str], given: list[str]) -> str:
    groups: dict[str, list[str]] = {name: [] for name, n in Counter(symbols).items() if n > 1}
    for symbol, name in zip(symbols, given, strict=True):
        if symbol in groups:
            groups[symbol].append(name)
    same = {symbol: names for symbol, names in groups.items() if len(set(names)) == 1}
    cased = {symbol: names for symbol, names in groups.items() if symbol not in same}
    parts = []
    if same:
        listed = (f"{symbol} ({len(names)}×)" for symbol, names in same.items())
        parts.append(f"{len(same)} gene names occur more than once: {shown(listed)}")
    if cased:
        listed = (f"{symbol} ({', '.join(names)})" for symbol, names in cased.items())
        parts.append(f"{len(cased)} gene names become equal when upper-cased: {shown(listed)}")
    return "; ".join(parts)
