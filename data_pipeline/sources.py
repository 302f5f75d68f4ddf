"""Where cells come from: one `Source` a data set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.cells import require_obs
from c2s_jax.data import corpus_format as fmt


@dataclass(frozen=True)
class Source:
    """One data set and how to read it.

    Attributes
    ----------
    data : AnnData or path of an ``.h5ad`` file
    name : str
    organism : str
    obs_columns : dict of field to column of ``obs``
        Fields are those of `c2s_jax.data.corpus_format.FIELDS`.
    constants : dict of field to str
        Fields that have one value for all cells.
    abstracts : sequence of str
        Texts about the data set, all saying the same.
    spatial_key : str, optional
        Key of ``obsm`` that holds positions in space.
    expression : dict
        Keyword arguments of `c2s_jax.cells.expression_matrix`.
    """

    data: ad.AnnData | str | Path
    name: str
    organism: str = ""
    obs_columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    abstracts: Sequence[str] = ()
    spatial_key: str | None = None
    expression: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self.obs_columns)
        check_fields(self.constants)
        twice = sorted(set(self.obs_columns) & set(self.constants))
        if twice:
            raise ValueError(f"{twice[0]!r} of {self.name} is given both as a column and as a constant: choose one")

    @property
    def file(self) -> str | None:
        """Name of the file, without its folder; None for data in memory."""
        return None if isinstance(self.data, ad.AnnData) else Path(self.data).name

    def n_cells(self) -> int | None:
        """Number of cells, without reading them; None where the file does not say."""
        if isinstance(self.data, ad.AnnData):
            return self.data.n_obs
        import h5py  # type: ignore[import-untyped]

        try:
            with h5py.File(self.data, "r") as file:
                obs = file["obs"]
                return int(obs[obs.attrs["_index"]].shape[0])
        except (OSError, KeyError, AttributeError):
            return None  # reading it will say what is wrong

    def read(self) -> ad.AnnData:
        """The data set.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file is missing or no ``.h5ad`` file.
        """
        if isinstance(self.data, ad.AnnData):
            return self.data
        path = Path(self.data)
        if not path.is_file():
            raise FileNotFoundError(f"input file not found: {path}")
        try:
            return ad.read_h5ad(path)
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read as .h5ad: {error}") from error

    def fields(self, adata: ad.AnnData, rows: NDArray[np.int64]) -> dict[str, NDArray]:
        """Text of each known field for the cells `rows`, object [C]; "" where there is no value."""
        require_obs(adata, list(self.obs_columns.values()))
        texts = {name: _texts(adata.obs[column].iloc[rows]) for name, column in self.obs_columns.items()}
        constants = {"organism": self.organism, **self.constants}
        for name, value in constants.items():
            if value and name not in texts:
                texts[name] = np.full(len(rows), _clean(value), dtype=object)
        return texts

    def coordinates(self, adata: ad.AnnData, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Positions of the cells `rows`, float32 [C, D]; None if the source has none."""
        if self.spatial_key is None:
            return None
        if self.spatial_key not in adata.obsm:
            raise KeyError(f"obsm has no {self.spatial_key!r}; it has {sorted(adata.obsm.keys())}")
        return np.asarray(adata.obsm[self.spatial_key], dtype=np.float32)[rows]


def check_fields(names: Iterable[str]) -> None:
    """Raise `ValueError` for a name that is no field of the corpus format."""
    for name in names:
        if name not in fmt.FIELDS:
            near = get_close_matches(name, fmt.FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{name!r} is no field of a corpus{hint} Fields are {', '.join(fmt.FIELDS)}.")


def _texts(column: pd.Series) -> NDArray:
    # Categories rather than cells: a column of a million cells has a few dozen values.
    codes, values = pd.factorize(column)
    texts = np.array([*(_clean(value) for value in values), ""], dtype=object)
    return texts[codes]  # code −1, no value, is the last


def _clean(value: Any) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return " ".join(str(value).split())


def pbmc68k_reduced() -> Source:
    """The 700 peripheral blood cells that scanpy's wheel brings along (Zheng et al. 2017, reduced)."""
    import scanpy

    return Source(
        data=scanpy.datasets.pbmc68k_reduced(),
        name="pbmc68k_reduced",
        organism="human",
        obs_columns={"cell_type": "bulk_labels"},
        constants={"tissue": "peripheral blood"},
        expression={"use_raw": True},
    )


BUNDLED = {"pbmc68k_reduced": pbmc68k_reduced}
"""Data sets that come with the installed packages, by name."""
