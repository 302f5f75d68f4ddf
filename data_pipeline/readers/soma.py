"""TileDB-SOMA experiments, among them the CELLxGENE Census, on disk or in a bucket."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from .errors import ReadError, closing_on_error, reading
from .matrices import RowMatrix
from .names import check_annotation, checked_index
from .table import CellTable

_JOIN = "soma_joinid"
_CELL_IDS = ("obs_id", _JOIN)
_GENE_NAMES = ("var_id", "feature_id", _JOIN)
_COUNTS_LAYERS = ("raw", "data")
# TileDB's default of 1 GiB a column is more than a block of cells needs
_CONFIG = {"soma.init_buffer_bytes": 64 * 1024**2}


@dataclass(frozen=True)
class SomaOptions:
    """What of an experiment is read, and how.

    Attributes
    ----------
    measurement : str
    obs_filter, var_filter : str, optional
        Which cells and genes, as SOMA's value filters, e.g. ``"tissue_general == 'lung' and is_primary_data"``.
    columns : sequence of str, optional
        Columns of obs to read; None: all.
    experiment : str, optional
        Which experiment of a census, e.g. "homo_sapiens".
    config : dict
        Of TileDB, e.g. ``{"vfs.s3.region": "us-west-2", "vfs.s3.no_sign_request": "true"}``.
    """

    measurement: str = "RNA"
    obs_filter: str | None = None
    var_filter: str | None = None
    columns: Sequence[str] | None = None
    experiment: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def soma_table(uri: str, options: SomaOptions, *, layer: str | None) -> CellTable:
    """The table of an experiment.

    Parameters
    ----------
    uri
    options
    layer
        Layer of X; None: "raw" or "data", or the only one.
    """
    try:
        import tiledbsoma
    except ImportError as error:
        raise ReadError(f"{uri} is a SOMA experiment: install c2s_jax[soma] (tiledbsoma) to read it") from error
    with closing_on_error() as resources, reading(uri, "a SOMA experiment"):
        context = tiledbsoma.SOMATileDBContext(tiledb_config={**_CONFIG, **options.config})
        opened = resources.enter_context(tiledbsoma.open(uri, context=context))
        experiment = _experiment(opened, options.experiment, uri)
        measurement = _member(experiment.ms, options.measurement, f"{uri}: ms")
        chosen = _layer(measurement.X, layer, uri)
        obs = _frame(experiment.obs, options.obs_filter, options.columns, _CELL_IDS, f"{uri}: obs")
        var = _frame(measurement.var, options.var_filter, None, _GENE_NAMES, f"{uri}: var")
        cells, genes = (frame[_JOIN].to_numpy(dtype=np.int64) for frame in (obs, var))
        matrix = SomaRows(measurement.X[chosen], cells, genes)
        check_annotation(obs, var, matrix.shape, uri, f"X[{chosen!r}]")
        return CellTable(
            name=uri,
            format="soma",
            obs=obs,
            var=var,
            matrix=matrix,
            matrix_name=f"X[{chosen!r}]",
            spaces=_spaces(measurement, cells),
            resources=resources,
        )


class SomaRows(RowMatrix):
    """Rows of an array of X, for the cells and genes of some join ids."""

    def __init__(self, array: Any, cells: NDArray[np.int64], genes: NDArray[np.int64]) -> None:
        self._array, self._cells, self._genes = array, cells, genes
        self._dense = array.soma_type == "SOMADenseNDArray"
        self._order = np.argsort(genes)
        self.shape = (len(cells), len(genes))
        self.dtype = np.dtype(array.schema.field("soma_data").type.to_pandas_dtype())

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        cells = self._cells[start:stop]
        if self._dense:
            return sparse.csr_matrix(_dense_rows(self._array, cells)[:, self._genes])
        if not len(cells):
            return sparse.csr_matrix((0, self.shape[1]), dtype=self.dtype)
        in_a_row = cells[-1] - cells[0] == len(cells) - 1 and (np.diff(cells) == 1).all()
        read = self._array.read((slice(int(cells[0]), int(cells[-1])) if in_a_row else cells,)).tables().concat()
        row_ids, column_ids, values = (read[name].to_numpy() for name in ("soma_dim_0", "soma_dim_1", "soma_data"))
        columns, known = _positions(column_ids, self._genes, self._order)
        rows, _ = _positions(row_ids, cells, np.argsort(cells))
        return sparse.csr_matrix((values[known], (rows[known], columns[known])), shape=(len(cells), self.shape[1]))


def _positions(
    ids: NDArray, among: NDArray[np.int64], order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each id stands in `among`, which `order` sorts, and whether it is there."""
    places = order[np.minimum(np.searchsorted(among, ids, sorter=order), len(among) - 1)]
    return places, among[places] == ids


def _dense_rows(array: Any, cells: NDArray[np.int64]) -> NDArray:
    """The rows of some join ids of a dense array, which only reads ranges."""
    if not len(cells):
        return np.zeros((0, array.shape[1]))
    first, last = int(cells.min()), int(cells.max())
    return array.read((slice(first, last),)).to_numpy()[cells - first]


def _experiment(opened: Any, name: str | None, uri: str) -> Any:
    if opened.soma_type == "SOMAExperiment":
        return opened
    experiments = opened.get("census_data", opened) if opened.soma_type == "SOMACollection" else {}
    if name is None or name not in experiments:
        there = ", ".join(experiments) or "none"
        raise ReadError(f"{uri} is no experiment but {opened.soma_type}: choose one with experiment; there is {there}")
    return experiments[name]


def _member(collection: Any, name: str, where: str) -> Any:
    if name not in collection:
        raise ReadError(f"{where} has no {name!r}; it has {', '.join(collection) or 'nothing'}")
    return collection[name]


def _layer(layers: Any, asked: str | None, uri: str) -> str:
    names = list(layers)
    if asked is not None:
        _member(layers, asked, f"{uri}: X")
        return asked
    likely = [name for name in _COUNTS_LAYERS if name in names] or names
    if not likely or (likely[0] not in _COUNTS_LAYERS and len(names) > 1):
        raise ReadError(f"{uri}: X has the layers {', '.join(names) or 'none'}: choose one with layer")
    return likely[0]


def _frame(
    array: Any, value_filter: str | None, columns: Sequence[str] | None, names: Sequence[str], what: str
) -> pd.DataFrame:
    there = list(array.keys())
    absent = [column for column in columns or () if column not in there]
    if absent:
        raise ReadError(f"{what} has no column {absent[0]!r}; it has {', '.join(there)}")
    index = next(name for name in names if name in there)
    wanted = None if columns is None else list(dict.fromkeys([_JOIN, index, *columns]))
    with reading(what if value_filter is None else f"{what} (with the filter {value_filter!r})"):
        frame = array.read(value_filter=value_filter, column_names=wanted).concat().to_pandas()
    if value_filter is not None and not len(frame):
        raise ReadError(f"{what}: nothing matches the filter {value_filter!r}")
    return checked_index(frame.set_index(index, drop=False), what, "index")


def _spaces(measurement: Any, cells: NDArray[np.int64]) -> dict[str, Any]:
    obsm = measurement.obsm if "obsm" in measurement else {}
    return {key: partial(_positions_in_space, obsm[key], cells) for key in obsm}


def _positions_in_space(array: Any, cells: NDArray[np.int64]) -> NDArray:
    if array.soma_type == "SOMADenseNDArray":
        return _dense_rows(array, cells)
    genes = np.arange(array.shape[1])
    return SomaRows(array, cells, genes).rows(0, len(cells)).toarray()
