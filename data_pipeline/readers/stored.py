"""AnnData as stored in HDF5 or Zarr, of any version: annotation into memory, matrices left where they are."""

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
from anndata import OldFormatWarning
from anndata.experimental import read_dispatched
from anndata.io import read_elem, sparse_dataset

from .errors import ReadError, reading
from .matrices import RowMatrix, as_rows
from .names import check_annotation, checked_index, decoded
from .selection import Lazy, alternatives, choose, layer_name
from .table import CellTable


@dataclass(frozen=True)
class Stored:
    """An open file or store.

    Attributes
    ----------
    store : h5py.File or zarr.Group
    file, format : str
        Name, for messages, and key of `data_pipeline.readers.FORMATS`.
    identity : str
        What tells its present content from all others, for `scratch`.
    scratch : path, optional
        See `data_pipeline.readers.transpose.transposed`.
    resources : ExitStack
        Closes it.
    """

    store: Any
    file: str
    format: str
    identity: str
    scratch: Path | None
    resources: ExitStack
    report: list[str] = field(default_factory=list)

    def table(self, layer: str | None, use_raw: bool | None) -> CellTable:
        """The table of what is asked for."""
        for key in ("obs", "var"):
            if key not in self.store:
                raise ReadError(f"{self.file} is no AnnData: it has no {key!r}, only {sorted(self.store) or 'nothing'}")
        matrices = self._matrices()
        name, matrix = choose(matrices, layer, use_raw, self.file)
        obs = self._frame("obs")
        var = self._frame("var" if name != "raw" else "raw.var" if "raw.var" in self.store else "raw/var")
        check_annotation(obs, var, matrix.shape, self.file, name)
        return CellTable(
            name=self.file,
            format=self.format,
            obs=obs,
            var=var,
            matrix=matrix,
            matrix_name=name,
            log1p_base=self._log1p_base(),
            report=self.report,
            spaces={key: partial(self._read, f"obsm/{key}") for key in self._keys("obsm")},
            others=alternatives(matrices, name),
            resources=self.resources,
        )

    def _keys(self, key: str) -> list[str]:
        held = self.store.get(key)
        if held is None:
            return []
        # before 0.7 obsm was one table with a column a key
        return list(held.dtype.names or ()) if hasattr(held, "dtype") else list(held)

    def _matrices(self) -> dict[str, Lazy]:
        keys = {"X": "X", "raw": "raw.X" if "raw.X" in self.store else "raw/X"}
        keys |= {layer_name(layer): f"layers/{layer}" for layer in self._keys("layers")}
        return {name: partial(self._rows, name, key) for name, key in keys.items() if key in self.store}

    def _rows(self, name: str, key: str) -> RowMatrix:
        held = self.store[key]
        if not hasattr(held, "dtype"):
            held = sparse_dataset(held)
            for part in ("indptr", "indices", "data"):
                _check_chunks(held.group[part], f"{self.file}: {key}/{part}")
        return as_rows(held, f"{self.file}: {name}", self.scratch, f"{self.identity}:{key}", self.resources)

    def _read(self, key: str) -> Any:
        group, _, name = key.partition("/")
        held = self.store[group]
        return held[name] if hasattr(held, "dtype") else read_elem(held[name])

    def _frame(self, key: str) -> pd.DataFrame:
        with reading(f"{self.file}: {key}"):
            held = self.store[key]
            frame = self._legacy_frame(held) if hasattr(held, "dtype") else self._decoding(held)
            if not isinstance(frame, pd.DataFrame):
                raise ReadError(f"{self.file}: {key} is no table but {type(frame).__name__}")
            return checked_index(frame, self.file, key)

    def _decoding(self, held: Any) -> Any:
        """`read_elem`, for which text that is not UTF-8 is no reason to give up."""

        def read(read_func: Any, name: str, elem: Any, *, iospec: Any) -> Any:
            try:
                return read_func(elem)
            except UnicodeDecodeError:
                if not isinstance(elem, h5py.Dataset):
                    raise
                return decoded(elem[()], f"{self.file}: {name.strip('/')}", self.report)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OldFormatWarning)
            return read_dispatched(held, read)

    def _legacy_frame(self, held: Any) -> pd.DataFrame:
        """A table as anndata wrote it before 0.7: records, and the values of categories in ``uns``."""
        records = held[()]
        first, *others = records.dtype.names
        columns = {name: self._legacy_column(held.name, name, records[name]) for name in others}
        return pd.DataFrame(columns, index=self._legacy_column(held.name, first, records[first]))

    def _legacy_column(self, key: str, name: str, values: np.ndarray) -> Any:
        if values.dtype.kind in "SO":
            return decoded(values.tolist(), f"{self.file}: {key.strip('/')}[{name!r}]", self.report)
        categories = self.store.get(f"uns/{name}_categories")
        if categories is None or values.dtype.kind not in "iu":
            return values
        texts = np.atleast_1d(categories[()])
        if texts.dtype.kind in "SO":
            texts = decoded(texts.tolist(), f"{self.file}: uns/{name}_categories", self.report)
        if len(values) and (values.min() < -1 or values.max() >= len(texts)):
            return values  # the entry belongs to a column of that name in the other table
        return pd.Categorical.from_codes(values, texts)

    def _log1p_base(self) -> Any:
        if "uns/log1p" not in self.store:
            return "absent"
        with reading(f"{self.file}: uns/log1p"), warnings.catch_warnings():
            warnings.simplefilter("ignore", OldFormatWarning)
            recorded = read_elem(self.store["uns/log1p"])
        return recorded.get("base") if hasattr(recorded, "get") else "absent"


def _check_chunks(array: Any, what: str) -> None:
    """Stop if chunks are missing, which Zarr takes for zeros; no chunk of a sparse matrix's parts is all zeros."""
    if isinstance(array, h5py.Dataset) or getattr(array, "shards", None) is not None:
        return
    if array.nchunks_initialized < array.nchunks:
        raise ReadError(f"{what} lacks {array.nchunks - array.nchunks_initialized} of its {array.nchunks} chunks")
