"""AnnData in memory (or backed by its file)."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad

from .errors import closing_on_error, reading
from .matrices import RowMatrix, as_rows
from .names import check_annotation, checked_index
from .selection import Lazy, alternatives, choose, layer_name
from .table import CellTable
from .transpose import file_key


def memory_table(
    adata: ad.AnnData, name: str, *, layer: str | None, use_raw: bool | None, scratch: Path | None
) -> CellTable:
    """The table of an AnnData, which is not changed."""
    with closing_on_error() as resources:
        matrices = _matrices(adata, name, scratch, resources)
        chosen, matrix = choose(matrices, layer, use_raw, name)
        with reading(f"{name}: obs or var"):
            obs = checked_index(adata.obs, name, "obs")
            var = checked_index(adata.raw.var if chosen == "raw" else adata.var, name, "var")
        check_annotation(obs, var, matrix.shape, name, chosen)
        recorded: Any = adata.uns.get("log1p")
        return CellTable(
            name=name,
            format="anndata",
            obs=obs,
            var=var,
            matrix=matrix,
            matrix_name=chosen,
            log1p_base=recorded.get("base") if hasattr(recorded, "get") else "absent",
            spaces={key: partial(adata.obsm.__getitem__, key) for key in adata.obsm},
            others=alternatives(matrices, chosen),
            resources=resources,
        )


def _matrices(adata: ad.AnnData, name: str, scratch: Path | None, resources: ExitStack) -> dict[str, Lazy]:
    def rows(what: str) -> RowMatrix:
        holder = adata.raw if what == "raw" else adata
        held = holder.X if what in ("X", "raw") else adata.layers[layers[what]]
        file = adata.filename if what in ("X", "raw") else None  # of a backed AnnData, these alone are the file's
        if file is None:  # no key would tell it from other data, so its temporary files are its own
            return as_rows(held, f"{name}: adata.{what}", None, "", resources)
        return as_rows(held, f"{name}: adata.{what}", scratch, f"{file_key(Path(file))}:{what}", resources)

    layers = {layer_name(layer): layer for layer in adata.layers}
    there = [*(["X"] if adata.X is not None else []), *(["raw"] if adata.raw is not None else []), *layers]
    return {what: partial(rows, what) for what in there}
