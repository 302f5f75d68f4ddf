"""One function that opens any format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import h5py  # type: ignore[import-untyped]

from .anndata_files import h5ad_table, zarr_table
from .errors import ReadError, closing_on_error, reading
from .hdf5 import open_hdf5
from .memory import memory_table
from .naming import GeneNaming, name_genes
from .soma import SomaOptions, soma_table
from .table import CellTable
from .tenx_h5 import is_tenx, tenx_h5_table
from .tenx_mtx import is_mtx, tenx_mtx_table


@dataclass(frozen=True)
class _Asked:
    layer: str | None
    use_raw: bool | None
    genome: str | None
    soma: SomaOptions | None
    scratch: Path | None

    def refuse(self, path: str, **options: object) -> None:
        for name, value in options.items():
            if value:
                raise ReadError(f"{path}: {name}={value!r} is given, but a file of this format has one matrix only")

    def refuse_soma(self, name: str) -> None:
        if self.soma is not None:
            raise ReadError(f"{name}: soma is given, but this is no SOMA experiment; leave soma out")


def _h5ad(path: str, asked: _Asked) -> CellTable:
    return h5ad_table(Path(path), layer=asked.layer, use_raw=asked.use_raw, scratch=asked.scratch)


def _zarr(path: str, asked: _Asked) -> CellTable:
    return zarr_table(Path(path), layer=asked.layer, use_raw=asked.use_raw, scratch=asked.scratch)


def _tenx_h5(path: str, asked: _Asked) -> CellTable:
    asked.refuse(path, layer=asked.layer, use_raw=asked.use_raw)
    return tenx_h5_table(Path(path), genome=asked.genome, scratch=asked.scratch)


def _tenx_mtx(path: str, asked: _Asked) -> CellTable:
    asked.refuse(path, layer=asked.layer, use_raw=asked.use_raw)
    return tenx_mtx_table(Path(path), scratch=asked.scratch)


def _soma(path: str, asked: _Asked) -> CellTable:
    asked.refuse(path, use_raw=asked.use_raw)
    return soma_table(path, asked.soma or SomaOptions(), layer=asked.layer)


FORMATS: Mapping[str, Callable[[str, _Asked], CellTable]] = {
    "h5ad": _h5ad,
    "zarr": _zarr,
    "10x_h5": _tenx_h5,
    "10x_mtx": _tenx_mtx,
    "soma": _soma,
}
"""Formats of files by name."""


def open_cells(
    data: ad.AnnData | str | Path,
    *,
    name: str | None = None,
    format: str | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    naming: GeneNaming | None = None,
    soma: SomaOptions | None = None,
    scratch: str | Path | None = None,
) -> CellTable:
    """Open cells for reading by blocks.

    Parameters
    ----------
    data
        An AnnData, or where the cells are: a file, a folder, or the URI of a SOMA experiment.
    name
        What messages call an AnnData.
    format
        A key of `FORMATS`; None to find out.
    layer, use_raw
        Which matrix of an AnnData: a layer, or ``raw``; X if neither is given. Which layer of X of a SOMA
        experiment.
    naming
        Which genes, and what they are called.
    soma
        Which part of a SOMA experiment; of other data, an error.
    scratch
        Folder for the temporary files that matrices stored by columns need. They are kept there for the
        next who opens the same file, until their owner removes the folder. None: files of this table
        alone, in the system's folder for such, removed by `CellTable.close`.

    Returns
    -------
    CellTable

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ReadError
        If it cannot be used; the message names the file and what in it.
    """
    naming = naming or GeneNaming()
    kept = None if scratch is None else Path(scratch)
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    asked = _Asked(layer, use_raw, naming.prefix, soma, kept)
    table = _open(data, name, format, asked)
    with closing_on_error() as resources:
        resources.callback(table.close)
        name_genes(table, naming)
    return table


def _open(data: ad.AnnData | str | Path, name: str | None, format: str | None, asked: _Asked) -> CellTable:
    if isinstance(data, ad.AnnData):
        name = name or "AnnData"
        asked.refuse_soma(name)
        return memory_table(data, name, layer=asked.layer, use_raw=asked.use_raw, scratch=asked.scratch)
    path = str(data)
    if format is not None and format not in FORMATS:
        raise ReadError(f"{path}: format {format!r} is unknown; there is {', '.join(FORMATS)}")
    if not _is_uri(path) and not Path(path).exists():
        raise FileNotFoundError(f"input file not found: {path}")
    found = format or guess_format(path, asked.scratch)
    if found != "soma":
        asked.refuse_soma(path)
    return FORMATS[found](path, asked)


def guess_format(data: str | Path, scratch: Path | None = None) -> str:
    """Format of what lies at `data`, from its content and, where that says nothing, from its name.

    Raises
    ------
    ReadError
        If it is none of `FORMATS`.
    """
    if _is_uri(str(data)):
        return "soma"
    path = Path(data)
    if is_mtx(path):
        return "10x_mtx"
    if path.is_dir():
        return _folder_format(path)
    if h5py.is_hdf5(path):
        with reading(str(path), "HDF5"), open_hdf5(path, scratch) as store:
            return "10x_h5" if "obs" not in store and is_tenx(store) else "h5ad"
    by_name = {".h5ad": "h5ad", ".h5": "10x_h5"}
    if path.suffix in by_name:
        return by_name[path.suffix]
    raise ReadError(f"{path} is none of the formats that can be read: {', '.join(FORMATS)}")


def _folder_format(path: Path) -> str:
    there = {p.name for p in path.iterdir()}
    if there & {".zgroup", ".zattrs", "zarr.json"} or path.suffix == ".zarr":
        return "zarr"
    if "__group" in there:
        return "soma"
    raise ReadError(
        f"{path} is a folder that holds neither a Zarr store nor a SOMA experiment nor matrix.mtx; "
        "for a folder of files give a pattern, such as 'folder/*.h5ad'"
    )


def _is_uri(path: str) -> bool:
    return "://" in path
