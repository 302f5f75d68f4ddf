"""Pseudobulk: raw counts summed over groups of cells, and a few cells drawn from each group."""

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from .errors import CellDataError, shown
from .ranking import hash_strings
from .source import as_csr, check_values, require_obs, select_source


def pseudobulk(adata: ad.AnnData, by: str | Sequence[str], layer: str | None = None, min_cells: int = 1) -> ad.AnnData:
    """Sum raw counts over the cells that agree in columns of `obs`.

    Like ``scanpy.get.aggregate(adata, by, "sum")``, but sparse, and with memory for the groups there are rather than
    for all combinations of values.

    Parameters
    ----------
    adata
        C cells with raw counts, in memory or backed; not changed.
    by
        Columns of `obs` that make a group, e.g. donor, cell type and batch. Cells without a value in one of them
        (NaN, None, "") belong to no group.
    layer
        Read `adata.layers[layer]`; `adata.X` if None.
    min_cells
        Leave out groups of fewer cells.

    Returns
    -------
    AnnData
        One row a group, ordered by `by`, named after its values. `X`: CSR int64 sums. `obs`: `by`, every other column
        that has one value within each group, and `n_cells`. `var` as in `adata`.

    Raises
    ------
    CellDataError
        If a column is missing, values are no counts, or no group is large enough.
    """
    columns = [by] if isinstance(by, str) else list(by)
    codes = group_codes(adata.obs, columns)
    name, held, var = select_source(adata, layer, None)
    counts = as_csr(held, name)
    check_values(adata, name, counts, var)
    _check_counts(adata, name, counts)
    grouped = codes >= 0
    sizes = np.bincount(codes[grouped])
    large = np.flatnonzero(sizes >= min_cells)
    if not len(large):
        raise CellDataError(
            f"no group of cells with the same {', '.join(columns)} has {min_cells} cells or more "
            f"({len(sizes)} groups, the largest of {sizes.max(initial=0)})"
        )
    member = sparse.csr_matrix(
        (np.ones(grouped.sum(), np.int64), (codes[grouped], np.flatnonzero(grouped))), shape=(len(sizes), len(codes))
    )
    obs = _group_obs(adata.obs, columns, codes).iloc[large]
    obs["n_cells"] = sizes[large]
    return ad.AnnData(sparse.csr_matrix(member[large] @ counts.astype(np.int64)), obs=obs, var=var.copy())


def sample_cells(obs: pd.DataFrame, by: str | Sequence[str], n: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw at most `n` cells of each group, without replacement.

    Which cells of a group are drawn depends on their names and the seed, not on the order of rows or on other groups.

    Parameters
    ----------
    obs
        C cells; the index are their names.
    by
        Columns that make a group, as in `pseudobulk`.
    n
        Cells of each group; a smaller group gives all it has.
    seed
        Another seed draws others.

    Returns
    -------
    int64 [S]
        Row numbers in rising order.
    """
    if n < 1:
        raise CellDataError(f"at least one cell of each group must be drawn, n is {n}")
    codes = group_codes(obs, [by] if isinstance(by, str) else list(by))
    rows = np.flatnonzero(codes >= 0)
    rows = rows[np.lexsort((hash_strings(obs.index[rows].tolist(), seed=seed, domain="sample"), codes[rows]))]
    before = np.searchsorted(codes[rows], codes[rows])  # rows of the groups before
    return np.sort(rows[np.arange(len(rows)) - before < n])


def group_codes(obs: pd.DataFrame, by: Sequence[str]) -> NDArray[np.int64]:
    """Number of each cell's group, ordered by value; -1 where a value is missing. int64 [C].

    Raises
    ------
    CellDataError
        If `by` is empty or `obs` lacks a column.
    """
    if not by:
        raise CellDataError("name at least one column of obs to group cells by")
    require_obs(obs, by)
    codes = np.zeros(len(obs), np.int64)
    known = np.ones(len(obs), bool)
    for column in by:
        places, values = pd.factorize(obs[column])  # -1 where missing
        texts, of_value = np.unique([str(value) for value in values] + [""], return_inverse=True)
        place = of_value[places]  # the last, "", for -1
        known &= np.char.strip(texts)[place] != ""
        codes = np.unique(codes * len(texts) + place, return_inverse=True)[1]
    out = np.full(len(obs), -1, np.int64)
    out[known] = np.unique(codes[known], return_inverse=True)[1]
    return out


def _group_obs(obs: pd.DataFrame, by: Sequence[str], codes: NDArray[np.int64]) -> pd.DataFrame:
    """A row a group: `by`, and what its cells agree in."""
    inside, groups = obs[codes >= 0], codes[codes >= 0]
    constant = inside.groupby(groups).nunique(dropna=False).max() == 1
    kept = [*by, *(name for name in obs.columns if name not in by and constant[name])]
    rows = inside.iloc[np.unique(groups, return_index=True)[1]][kept].copy()
    names = rows[list(by)].astype(str).agg("_".join, axis=1)
    rows.index = ad.utils.make_index_unique(pd.Index(names.tolist(), dtype=object))
    return rows


def _check_counts(adata: ad.AnnData, name: str, matrix: sparse.csr_matrix) -> None:
    fractions = _fractions(matrix)
    if not len(fractions):
        return
    cell = int(np.searchsorted(matrix.indptr, fractions[0], side="right")) - 1
    held = {"adata.X": adata.X, **{f"layer={layer!r}": adata.layers[layer] for layer in adata.layers}}
    counts = [
        where for where, values in held.items() if values is not None and not len(_fractions(as_csr(values, where)))
    ]
    instead = f"counts there are: {shown(counts)}" if counts else "neither adata.X nor a layer has counts"
    raise CellDataError(
        f"adata.{name} does not hold raw counts: {len(fractions)} values are no whole numbers (first: "
        f"{matrix.data[fractions[0]]:g} in cell {adata.obs_names[cell]!r}). Sums of normalised or logged values are no "
        f"pseudobulk; {instead}"
    )


def _fractions(matrix: sparse.csr_matrix) -> NDArray[np.int64]:
    """Entries that are no whole numbers."""
    return np.flatnonzero(matrix.data != np.floor(matrix.data)) if matrix.dtype.kind == "f" else np.zeros(0, np.int64)
