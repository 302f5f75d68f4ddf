"""A table of cells that is read a block of rows at a time."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells.source import as_csr, fault

from .errors import ReadError, reading
from .matrices import RowMatrix, SelectedColumns

_PROBE_CELLS = 64


@dataclass
class CellTable:
    """Cells and genes of one data set, with expression read on demand. A context manager.

    Attributes
    ----------
    name : str
        File, for messages.
    format : str
        A key of `data_pipeline.readers.FORMATS`.
    obs : DataFrame
        All C cells, indexed by their ids (str, unique).
    var : DataFrame
        G genes.
    matrix : RowMatrix
        [C, G]; use `rows`.
    matrix_name : str
        "X", "raw" or "layers['…']".
    symbols : list of str [G]
        What the genes are called in cell sentences, in any case; see `data_pipeline.readers.GeneNaming`.
    log1p_base
        ``uns["log1p"]["base"]``, None where the entry has none, "absent" where there is no entry.
    report : list of str
        What was chosen and repaired on the way, in sentences.
    spaces : dict of str to callable
        Coordinates by key; use `coordinates`.
    others : dict of str to callable
        Matrices that could be read in place of this one, by how to ask for them.
    resources : ExitStack
        Closed by `close`.
    """

    name: str
    format: str
    obs: pd.DataFrame
    var: pd.DataFrame
    matrix: RowMatrix
    matrix_name: str = "X"
    symbols: list[str] = field(default_factory=list)
    log1p_base: Any = "absent"
    report: list[str] = field(default_factory=list)
    spaces: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    others: Mapping[str, Callable[[], RowMatrix]] = field(default_factory=dict)
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def n_cells(self) -> int:
        """C."""
        return len(self.obs)

    @property
    def n_genes(self) -> int:
        """G."""
        return len(self.var)

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Values of the cells ``start:stop`` as they are stored.

        Returns
        -------
        CSR [stop − start, G]
            Canonical: columns sorted, no entry twice, no stored zeros. Memory is that of the block.

        Raises
        ------
        ReadError
            If this part of the file is damaged.
        """
        start, stop, _ = slice(start, stop).indices(self.n_cells)
        with reading(f"{self.name}: {self.matrix_name}, cells {start} to {stop},"):
            return as_csr(self.matrix.rows(start, max(start, stop)), self.matrix_name)

    def sample(self, n_cells: int) -> sparse.csr_matrix:
        """Values of some `n_cells` cells from all over the table, canonical CSR, in little time.

        Of a matrix stored by columns, these are incomplete cells: the entries that come first.
        """
        with reading(f"{self.name}: {self.matrix_name}"):
            return as_csr(self.matrix.sample(n_cells), self.matrix_name)

    def coordinates(self, key: str) -> NDArray[np.float32]:
        """Positions of all cells in space, float32 [C, D].

        Raises
        ------
        ReadError
            If there are none under `key`, or not one finite position a cell.
        """
        if key not in self.spaces:
            raise ReadError(f"{self.name}: obsm has no {key!r}; it has {sorted(self.spaces) or 'nothing'}")
        with reading(f"{self.name}: obsm[{key!r}]"):
            found = np.asarray(self.spaces[key](), dtype=np.float32)
        if found.ndim != 2 or len(found) != self.n_cells:
            raise ReadError(f"{self.name}: obsm[{key!r}] has shape {found.shape}, expected {self.n_cells} rows")
        lost = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(lost):
            raise ReadError(
                f"{self.name}: obsm[{key!r}] has no position for {len(lost)} of {len(found)} cells "
                f"(first: {self.obs.index[lost[0]]!r}, row {lost[0]}); drop those cells, or leave the coordinates out"
            )
        return found

    def select_genes(self, keep: NDArray[np.bool_], why: str) -> None:
        """Keep only some genes, bool [G]; `why` goes into the report."""
        if keep.all():
            return
        if not keep.any():
            raise ReadError(f"{self.name}: no gene is left: {why or 'none is chosen'}")
        chosen = np.flatnonzero(keep)
        self.matrix = SelectedColumns(self.matrix, chosen)
        self.others = {how: _selected(other, keep) for how, other in self.others.items()}
        self.var = self.var.iloc[chosen]
        self.symbols = [self.symbols[i] for i in chosen.tolist()] if self.symbols else []
        if why:
            self.report.append(why)

    def usable_instead(self) -> str:
        """Which other matrices of the file hold values that can be ranked, judged by their first cells."""
        found = [how for how, other in self.others.items() if self._usable(how, other)]
        return " or ".join(found)

    def _usable(self, how: str, other: Callable[[], RowMatrix]) -> bool:
        try:
            with reading(f"{self.name}: {how}"):
                block = as_csr(other().sample(_PROBE_CELLS), how)
                return fault(block, *([""] * n for n in block.shape)) is None
        except ReadError:
            return False

    def close(self) -> None:
        """Close the file and remove temporary ones."""
        self.resources.close()

    def __enter__(self) -> "CellTable":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _selected(other: Callable[[], RowMatrix], keep: NDArray[np.bool_]) -> Callable[[], RowMatrix]:
    # adata.raw may have genes of its own, for which the choice says nothing
    def rows() -> RowMatrix:
        matrix = other()
        return SelectedColumns(matrix, np.flatnonzero(keep)) if matrix.shape[1] == len(keep) else matrix

    return rows
