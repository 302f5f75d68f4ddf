"""Several cells that are read together."""

import dataclasses

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.cells import CellDataError, hash_strings, require_obs
from c2s_jax.inference.reading import CellReader


@dataclasses.dataclass(frozen=True)
class CellContext:
    """Cells of one group: their rows in the AnnData, int64, and the number of the context within its group."""

    group: str
    number: int
    rows: NDArray[np.int64]


def draw_contexts(
    adata: ad.AnnData, reader: CellReader, groupby: str | None, *, n_cells: int, n_contexts: int = 1, seed: int = 0
) -> list[CellContext]:
    """Draw cells of each group, without replacement.

    Which cells are drawn depends on their names and the seed, not on their order.

    Parameters
    ----------
    groupby
        Column of ``obs``; None takes all cells as one group, named "all".
    n_cells
        Cells a context; fewer where a group has fewer.
    n_contexts
        Contexts a group; fewer where it has not enough cells for full ones.

    Raises
    ------
    CellDataError
        If there is no such column, or a group has no cell that expresses a gene of the model.
    """
    if n_cells < 1 or n_contexts < 1:
        raise ValueError(f"n_cells={n_cells} and n_contexts={n_contexts} must be at least 1")
    if not adata.n_obs:
        raise CellDataError("adata holds no cells")
    if groupby is None:
        groups = np.full(adata.n_obs, "all", dtype=object)
    else:
        require_obs(adata, [groupby])
        groups = np.asarray(adata.obs[groupby].astype(object))
        if pd.isna(groups).all():
            raise CellDataError(f"adata.obs[{groupby!r}] has no value for any cell")
    order = np.argsort(hash_strings(np.asarray(adata.obs_names, str), seed=seed, domain="context"), kind="stable")
    out = []
    for group in sorted({str(g) for g in groups[~pd.isna(groups)]}):
        rows = _first_readable(reader, order[groups[order].astype(str) == group], n_cells * n_contexts)
        if not len(rows):
            raise CellDataError(f"no cell of {groupby}={group!r} expresses a gene of the model")
        full = max(1, min(n_contexts, len(rows) // n_cells))
        out += [CellContext(group, i, rows[i * n_cells : (i + 1) * n_cells]) for i in range(full)]
    return out


def _first_readable(reader: CellReader, rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first ``most`` of some rows that express a gene of the model, read in growing parts until enough."""
    found, start, size = np.empty(0, np.int64), 0, 2 * most + 8
    while start < len(rows) and len(found) < most:
        part = rows[start : start + size]
        found = np.concatenate([found, part[np.diff(reader.take(part)[1]) > 0]])
        start, size = start + size, 2 * size
    return found[:most]
