"""Folders of ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (or ``genes.tsv``), compressed or not."""

import gzip
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.errors import ParserWarning

from .errors import ReadError, closing_on_error, reading
from .matrices import TransposedRows
from .names import check_annotation, decoded
from .table import CellTable
from .tenx_h5 import select_expression
from .transpose import Block, Entries, file_key

_CHUNK_LINES = 1_000_000
_MATRIX = ("matrix.mtx.gz", "matrix.mtx")


def is_mtx(path: Path) -> bool:
    """Whether `path` is a folder with one such matrix, or its matrix file."""
    return bool(_matrices(path))


def tenx_mtx_table(path: Path, *, scratch: Path | None) -> CellTable:
    """The table of a folder, or of the matrix file in it, of which the others share the beginning of the name."""
    with closing_on_error() as resources, reading(str(path), "10x .mtx"):
        file = str(path)
        matrices = _matrices(path)
        if len(matrices) != 1:
            listed = ", ".join(p.name for p in matrices)
            raise ReadError(f"{file} holds {len(matrices)} matrices ({listed or 'no matrix.mtx'}): name one of them")
        report: list[str] = []
        cells = _table(_beside(matrices[0], ["barcodes.tsv"]), report)
        features = _table(_beside(matrices[0], ["features.tsv", "genes.tsv"]), report)
        text = _open_text(matrices[0], len(cells), len(features), report)
        key = file_key(matrices[0])
        matrix = TransposedRows(text.entries(), (len(cells), len(features)), file, scratch, key, resources)
        obs, var = pd.DataFrame(index=pd.Index(cells[0], dtype=object)), _var(features)
        check_annotation(obs, var, matrix.shape, file, matrices[0].name)
        table = CellTable(file, "10x_mtx", obs, var, matrix, matrices[0].name, report=report, resources=resources)
        select_expression(table)
        return table


def _matrices(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.endswith(_MATRIX) else []
    found = sorted(p for p in path.iterdir() if p.is_file() and p.name.endswith(_MATRIX))
    # both forms of one file are one matrix
    return [p for p in found if not (p.suffix == ".gz" and p.with_suffix("") in found)]


def _beside(matrix: Path, names: list[str]) -> Path:
    prefix = matrix.name[: -len(next(ending for ending in _MATRIX if matrix.name.endswith(ending)))]
    for name in names:
        for ending in ("", ".gz"):
            path = matrix.with_name(f"{prefix}{name}{ending}")
            if path.is_file():
                return path
    raise ReadError(f"{matrix.parent}: {prefix}{names[0]}(.gz) is missing beside {matrix.name}")


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _table(path: Path, report: list[str]) -> pd.DataFrame:
    """Columns of a table without a head; the first is never empty."""
    with reading(str(path)), _opened(path) as file:
        lines = file.read().splitlines()
    texts = decoded(lines, str(path), report)
    rows = [line.split("\t") for line in texts]
    empty = [i for i, row in enumerate(rows) if not row[0].strip()]
    if empty:
        raise ReadError(f"{path}: line {empty[0] + 1} has no name")
    return pd.DataFrame(rows if rows else [[]], index=range(len(rows)))


def _var(features: pd.DataFrame) -> pd.DataFrame:
    named = features[1] if 1 in features else features[0]
    var = pd.DataFrame({"gene_ids": features[0].to_numpy()}, index=pd.Index(named, dtype=object, name=None))
    if 2 in features:
        var["feature_types"] = features[2].to_numpy()
    return var


@dataclass(frozen=True)
class _Text:
    """A MatrixMarket file: where its entries begin, their number and type, and which column names cells."""

    path: Path
    head_lines: int
    n_cells: int
    n_genes: int
    n_entries: int
    field: str
    cells_first: bool

    def entries(self) -> Entries:
        dtype = np.dtype(np.float64 if self.field == "real" else np.int64)
        return Entries(self._row_lengths, self._blocks, dtype, self.n_entries)

    def _row_lengths(self) -> NDArray[np.int64]:
        lengths = np.zeros(self.n_cells, dtype=np.int64)
        for cells, _, _ in self._blocks():
            lengths += np.bincount(cells, minlength=self.n_cells)
        return lengths

    def _blocks(self) -> Iterator[Block]:
        names = ["first", "second", "value"][: 2 if self.field == "pattern" else 3]
        dtypes = {"first": np.int64, "second": np.int64, "value": np.float64 if self.field == "real" else np.int64}
        read = 0
        with reading(str(self.path)), _opened(self.path) as file, warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # a line of more columns would only be a warning
            for _ in range(self.head_lines):
                file.readline()
            if not self.n_entries:
                return
            chunks = pd.read_csv(
                file, sep=r"\s+", header=None, names=names, dtype=dtypes, index_col=False, chunksize=_CHUNK_LINES
            )
            for chunk in chunks:
                block = self._block(chunk, read)
                read += len(chunk)
                yield block
        if read != self.n_entries:
            raise ReadError(f"{self.path} is cut short or damaged: {read} of {self.n_entries} entries are there")

    def _block(self, chunk: pd.DataFrame, before: int) -> Block:
        first, second = chunk["first"].to_numpy() - 1, chunk["second"].to_numpy() - 1
        cells, genes = (first, second) if self.cells_first else (second, first)
        wrong = (cells < 0) | (cells >= self.n_cells) | (genes < 0) | (genes >= self.n_genes)
        if wrong.any():
            line = self.head_lines + before + int(wrong.argmax()) + 1
            raise ReadError(f"{self.path}: line {line} is outside of {self.n_genes} genes × {self.n_cells} cells")
        values = chunk["value"].to_numpy() if "value" in chunk else np.ones(len(chunk), dtype=np.int64)
        return cells, genes, values


def _open_text(path: Path, n_cells: int, n_genes: int, report: list[str]) -> _Text:
    with reading(str(path), "MatrixMarket"), _opened(path) as file:
        banner = file.readline(200).decode("ascii", "replace").lower().split()
        if banner[:3] != ["%%matrixmarket", "matrix", "coordinate"] or banner[4:] != ["general"]:
            raise ReadError(f"{path} is no sparse MatrixMarket file: it begins {' '.join(banner)[:80]!r}")
        if banner[3] not in ("integer", "real", "pattern"):
            raise ReadError(f"{path} holds {banner[3]} values, no real numbers")
        head = 1
        while (line := file.readline(10_000)).startswith(b"%"):
            head += 1
        n_first, n_second, n_entries = (int(part) for part in line.split())
    if (n_first, n_second) == (n_cells, n_genes) != (n_genes, n_cells):
        report.append(f"{path.name} is cells × genes, not genes × cells, and is read so")
    elif (n_first, n_second) != (n_genes, n_cells):
        raise ReadError(
            f"{path} is {n_first} × {n_second}, but there are {n_genes} features and {n_cells} barcodes in the "
            "files beside it: do all three belong together?"
        )
    cells_first = (n_first, n_second) == (n_cells, n_genes) and n_cells != n_genes
    return _Text(path, head + 1, n_cells, n_genes, n_entries, banner[3], cells_first)
