"""HDF5 files of Cell Ranger: version 2 with a group a genome, version 3 and later with one matrix."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import ReadError, closing_on_error, reading
from .hdf5 import open_hdf5
from .matrices import CompressedRows
from .names import check_annotation, decoded
from .table import CellTable

_EXPRESSION = "Gene Expression"


def is_tenx(store: Any) -> bool:
    """Whether an open HDF5 file is one of these."""
    return "matrix" in store or any("gene_names" in group for group in store.values() if hasattr(group, "keys"))


def tenx_h5_table(path: Path, *, genome: str | None, scratch: Path | None) -> CellTable:
    """The table of a feature-barcode matrix.

    Parameters
    ----------
    path
    genome
        Which genome of a version 2 file of several.
    scratch
        See `open_hdf5`.
    """
    with closing_on_error() as resources, reading(str(path), "10x .h5"):
        store = resources.enter_context(open_hdf5(path, scratch))
        key = "matrix" if "matrix" in store else _genome(store, genome, path)
        group, file = store[key], str(path)
        report: list[str] = []
        absent = [name for name in ("barcodes", "data", "indices", "indptr", "shape") if name not in group]
        if absent:
            raise ReadError(f"{file}: {key} has no {absent[0]!r}; it has {sorted(group)}")
        with reading(f"{file}: {key}/barcodes"):
            barcodes = decoded(group["barcodes"][:].tolist(), f"{file}: {key}/barcodes", report)
        obs = pd.DataFrame(index=pd.Index(barcodes, dtype=object))
        var = _features(group, file, key, report)
        with reading(f"{file}: {key}"):
            n_genes, n_cells = (int(n) for n in group["shape"][:])
            indptr, indices, data = (group[part] for part in ("indptr", "indices", "data"))
            matrix = CompressedRows(indptr, indices, data, n_genes, f"{file}: {key}")
        if matrix.shape[0] != n_cells:
            raise ReadError(f"{file}: {key} is damaged: shape says {n_cells} cells, indptr {matrix.shape[0]}")
        check_annotation(obs, var, matrix.shape, file, key)
        table = CellTable(file, "10x_h5", obs, var, matrix, key, report=report, resources=resources)
        select_expression(table)
        return table


def select_expression(table: CellTable) -> None:
    """Leave out features that are not genes: antibodies, guides, hashtags."""
    if "feature_types" in table.var:
        kinds = table.var["feature_types"].value_counts()
        others = ", ".join(f"{n} {kind}" for kind, n in kinds.items() if kind != _EXPRESSION)
        keep = np.asarray(table.var["feature_types"] == _EXPRESSION)
        table.select_genes(keep, f"features that are not {_EXPRESSION} are left out: {others}")


def _genome(store: Any, genome: str | None, path: Path) -> str:
    genomes = [name for name, group in store.items() if "gene_names" in group]
    if genome is None and len(genomes) == 1:
        return genomes[0]
    if genome is not None and genome in genomes:
        return genome
    wrong = "holds several genomes" if genome is None else f"has no genome {genome!r}"
    raise ReadError(f"{path} {wrong}: choose one of {', '.join(genomes)} with genes_prefix")


def _features(group: Any, file: str, key: str, report: list[str]) -> pd.DataFrame:
    def texts(name: str) -> Any:
        if name not in group:
            raise ReadError(f"{file}: {key} has no {name!r}; it has {sorted(group)}")
        with reading(f"{file}: {key}/{name}"):
            return decoded(group[name][:].tolist(), f"{file}: {key}/{name}", report)

    if "gene_names" in group:
        names = pd.Index(texts("gene_names"), dtype=object)
        return pd.DataFrame({"gene_ids": texts("genes"), "genome": key}, index=names)
    # files of probes have the gene's identifier beside the probe's
    ids = "features/gene_id" if "features/gene_id" in group else "features/id"
    columns = {"gene_ids": texts(ids), "feature_types": texts("features/feature_type")}
    if "features/genome" in group:
        columns["genome"] = texts("features/genome")
    return pd.DataFrame(columns, index=pd.Index(texts("features/name"), dtype=object))
