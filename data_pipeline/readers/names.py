"""Checks of cell and gene names, and text that is not UTF-8."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.cells.errors import shown
from c2s_jax.cells.genes import is_ensembl

from .errors import ReadError

_BARCODE = re.compile(r"(?:^|[^A-Za-z])[ACGT]{12,}(?:$|[^A-Za-z])")
# Expressed in nearly every tissue and on nearly every panel, in human as in mouse.
_COMMON_GENES = frozenset(
    "ACTB GAPDH B2M MALAT1 EEF1A1 TPT1 FTH1 FTL RPLP0 RPLP1 RPS3 RPL13A CD3D CD3E CD4 CD8A CD14 CD19 CD68 CD79A "
    "MS4A1 PTPRC LYZ NKG7 EPCAM KRT8 VIM PECAM1 COL1A1 ACTA2 MKI67 STAT1 MYC TP53 JUN FOS GFAP SNAP25 INS ALB".split()
)
_ENOUGH_COMMON = 5
_MOSTLY = 0.5
_PROBE = 2000


def checked_index(frame: pd.DataFrame, file: str, key: str) -> pd.DataFrame:
    """`frame` with its index as str."""
    if isinstance(frame.index, pd.MultiIndex):
        raise ReadError(f"{file}: {key} has an index of several levels; cells and genes have one name each")
    if frame.index.dtype != object or not all(type(name) is str for name in frame.index):
        frame = frame.copy(deep=False)
        frame.index = pd.Index([_text(name) for name in frame.index], dtype=object, name=frame.index.name)
    return frame


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def check_annotation(obs: pd.DataFrame, var: pd.DataFrame, shape: Sequence[int], file: str, matrix: str) -> None:
    """Stop if cells and genes cannot be those of the matrix, are none, are swapped or share an id."""
    if tuple(shape) != (len(obs), len(var)):
        raise ReadError(
            f"{file}: {matrix} is {shape[0]} × {shape[1]}, but obs names {len(obs)} cells and var {len(var)} genes"
        )
    if not len(obs) or not len(var):
        raise ReadError(f"{file}: there are {len(obs)} cells (obs) and {len(var)} genes (var)")
    check_orientation(obs.index, var.index, file)
    twice = obs.index.duplicated()
    if twice.any():
        listed = shown(dict.fromkeys(obs.index[twice]))
        raise ReadError(
            f"{file}: {int(twice.sum())} cells have an id (obs_names) that another has already: {listed}. "
            "Make them unique, for instance with adata.obs_names_make_unique(), or by prefixing the sample"
        )


def check_orientation(cells: Sequence[str], genes: Sequence[str], file: str) -> None:
    """Stop if the rows look like genes or the columns like cells, and not the other way round as well."""
    as_genes, as_cells = _looks_like_genes(cells), _looks_like_barcodes(genes)
    if (as_genes and not _looks_like_genes(genes)) or (as_cells and not _looks_like_barcodes(cells)):
        what = f"genes ({shown(cells, 3)})" if as_genes else f"no barcodes ({shown(cells, 3)})"
        raise ReadError(
            f"{file} seems to be transposed: its rows are named like {what}, "
            f"its columns like {'cells' if as_cells else 'no genes'} ({shown(genes, 3)}). "
            "Cells must be rows: write adata.T to a new file and use that"
        )


def _looks_like_genes(names: Sequence[str]) -> bool:
    probe = list(names[:_PROBE])
    if probe and sum(map(is_ensembl, probe)) >= _MOSTLY * len(probe):
        return True
    return len(_COMMON_GENES.intersection(name.upper() for name in names)) >= _ENOUGH_COMMON


def _looks_like_barcodes(names: Sequence[str]) -> bool:
    probe = list(names[:_PROBE])
    return bool(probe) and sum(bool(_BARCODE.search(name)) for name in probe) >= _MOSTLY * len(probe)


def decoded(values: Sequence[Any] | NDArray, what: str, report: list[str]) -> NDArray:
    """Texts of `values`, object; what is not UTF-8 is read as Windows-1252, and counted in `report`."""
    texts = np.empty(len(values), dtype=object)
    repaired = []
    for i, value in enumerate(values):
        if isinstance(value, bytes):
            try:
                texts[i] = value.decode("utf-8")
            except UnicodeDecodeError:
                texts[i] = value.decode("cp1252", "replace")
                repaired.append(f"{texts[i]!r} (row {i})")
        else:
            texts[i] = value
    if repaired:
        report.append(
            f"{what}: {len(repaired)} of {len(values)} texts are not UTF-8 and are read as Windows-1252: "
            f"{shown(repaired)}"
        )
    return texts
