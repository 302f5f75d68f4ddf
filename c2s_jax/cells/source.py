"""Reading one expression matrix out of an AnnData, and saying what is wrong with it."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from .errors import CellDataError, shown

# enough cells to see whether a matrix that was not asked for would be usable
_PROBE_CELLS = 64


def require_obs(adata: ad.AnnData | pd.DataFrame, columns: Sequence[str], *, allow_missing: bool = True) -> None:
    """Check that `adata.obs` has `columns`.

    Parameters
    ----------
    adata
        Or its `obs`.
    columns
        Names of columns (a single name is taken as one column).
    allow_missing
        If False, cells without a value (NaN, None, "") are an error too.

    Raises
    ------
    CellDataError
        Naming the absent columns and the nearest ones there are, or the first cells without a value.
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    obs = adata if isinstance(adata, pd.DataFrame) else adata.obs
    there = [str(name) for name in obs.columns]
    absent = [name for name in columns if name not in there]
    if absent:
        raise CellDataError(
            "; ".join(f"adata.obs has no column {name!r}{_nearest(name, there)}" for name in absent)
            + f". Columns there are: {shown(there, 30) or 'none'}"
        )
    for name in [] if allow_missing else columns:
        column = obs[name]
        empty = np.asarray(column.isna()) | np.asarray(column.astype(str).str.strip() == "")
        if empty.any():
            raise CellDataError(
                f"adata.obs[{name!r}] has no value for {empty.sum()} of {len(empty)} cells: "
                f"{shown(obs.index[empty])}; fill them in or drop those cells"
            )


def _nearest(name: str, there: Sequence[str]) -> str:
    by_lower = {other.lower(): other for other in there}
    near = [by_lower[n] for n in get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)]
    near += [o for o in there if name.lower() in o.lower() and o not in near]
    return f" (nearest: {', '.join(map(repr, near[:5]))})" if near else ""


def select_source(
    adata: ad.AnnData, layer: str | None, use_raw: bool | None, *, argument: str = "layer"
) -> tuple[str, Any, Any]:
    """Choose where expression is read from; messages call the layer's argument by its name, `argument`.

    Returns
    -------
    (name, matrix, var)
        "X", "raw" or "layers['…']"; the matrix as AnnData holds it; the annotation of its genes.
    """
    if layer is not None and use_raw:
        raise CellDataError(f"both {argument}={layer!r} and use_raw=True are given; choose one")
    if use_raw:
        if adata.raw is None:
            raise CellDataError(f"use_raw=True, but adata.raw is empty; {alternatives(adata, 'raw', argument)}")
        return "raw", adata.raw.X, adata.raw.var
    if layer is not None:
        if layer not in adata.layers:
            layers = [str(name) for name in adata.layers]
            raise CellDataError(
                f"adata.layers has no {layer!r}{_nearest(layer, layers)}; layers there are: {shown(layers) or 'none'}"
            )
        return f"layers[{layer!r}]", adata.layers[layer], adata.var
    matrix = _x(adata)
    if matrix is None:
        raise CellDataError(f"adata.X is empty; {alternatives(adata, 'X', argument)}")
    return "X", matrix, adata.var


def _x(adata: ad.AnnData) -> Any:
    """``adata.X``; None where there is none, in a file that is not read into memory, too."""
    try:
        return adata.X
    except KeyError:
        return None


def as_csr(matrix: Any, name: str) -> sparse.csr_matrix:
    """A matrix of AnnData (dense, CSR, CSC, on disk, lazy) as CSR with sorted columns and no stored zeros.

    The dtype stays what it is, so that ranking sees the values as they are; the caller's arrays are not
    changed.
    """
    if hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    elif hasattr(matrix, "compute"):
        matrix = matrix.compute()
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix[:])
    if matrix.ndim != 2:
        raise CellDataError(f"adata.{name} has {matrix.ndim} dimensions, expected cells × genes")
    if matrix.dtype.kind not in "biuf":
        raise CellDataError(f"adata.{name} holds {matrix.dtype}, no numbers; convert it with .astype('float32')")
    if matrix.dtype.kind == "b":
        matrix = matrix.astype(np.uint8)
    if matrix.dtype == np.float16:
        matrix = matrix.astype(np.float32)
    csr = sparse.csr_matrix(matrix)
    if csr.indices.dtype != csr.indptr.dtype:  # as in files of many entries; SciPy's routines want one type
        csr = sparse.csr_matrix((csr.data, csr.indices, csr.indptr), shape=csr.shape)
    shares = sparse.issparse(matrix) and matrix.format == "csr"
    if shares and csr.has_canonical_format and np.all(csr.data):
        return csr
    if shares:
        csr = csr.copy()
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def fault(matrix: sparse.csr_matrix, cells: Sequence[str], genes: Sequence[str]) -> str | None:
    """What makes the values unusable, and where; None if they can be used."""
    return bad_values(matrix, cells, genes) if matrix.nnz else "holds no expressed gene in any cell"


def bad_values(matrix: sparse.csr_matrix, cells: Sequence[str], genes: Sequence[str], first_row: int = 0) -> str | None:
    """Which values are no expression, and where; None if all can be used.

    `matrix` may be a block of rows that begins at `first_row`.
    """
    if not matrix.nnz or (np.isfinite(matrix.data).all() and matrix.data.min() >= 0):
        return None
    for what, wrong in (
        ("NaN", np.isnan(matrix.data)),
        ("infinite", np.isinf(matrix.data)),
        ("negative", matrix.data < 0),
    ):
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            cell = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
            gene = genes[matrix.indices[at]]
            where = f"first: {matrix.data[at]:g} in cell {cells[cell]!r} (row {first_row + cell}), gene {gene!r}"
            scaled = "; it looks scaled (z-scores) or batch-corrected" if what == "negative" else ""
            return f"holds {int(wrong.sum())} {what} values ({where}){scaled}"
    return None


def check_values(adata: ad.AnnData, name: str, matrix: sparse.csr_matrix, var: Any) -> None:
    """Stop with what is wrong with `matrix` and what in `adata` could be used in its place."""
    found = fault(matrix, adata.obs_names, var.index)
    if found:
        raise CellDataError(
            f"adata.{name} {found}. Cell sentences need counts or normalised, non-negative expression: "
            f"{alternatives(adata, name)}"
        )


def alternatives(adata: ad.AnnData, tried: str, argument: str = "layer") -> str:
    """Which matrices could be used instead of the one that was tried, and how; a layer is given as `argument`."""
    usable = [how for name, how in _candidates(adata, argument) if name != tried and _usable(adata, name)]
    if usable:
        return f"usable instead: {' or '.join(usable)}"
    return "neither adata.X nor adata.raw nor any layer is usable; go back to the counts"


def _candidates(adata: ad.AnnData, argument: str) -> Iterator[tuple[str, str]]:
    if _x(adata) is not None:
        yield "X", "adata.X (the default: no layer, use_raw=False)"
    if adata.raw is not None:
        yield "raw", "adata.raw (use_raw=True)"
    for layer in adata.layers:
        yield f"layers[{layer!r}]", f"adata.layers[{layer!r}] ({argument}={layer!r})"


def _usable(adata: ad.AnnData, name: str) -> bool:
    holder = adata.raw if name == "raw" else adata
    matrix = (
        holder.X
        if name in ("X", "raw")
        else next(adata.layers[layer] for layer in adata.layers if f"layers[{layer!r}]" == name)
    )
    try:
        return fault(as_csr(matrix[:_PROBE_CELLS], name), adata.obs_names, holder.var_names) is None
    except CellDataError:
        return False
