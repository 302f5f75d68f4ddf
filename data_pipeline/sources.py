"""Where cells come from: one `Source` a data set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.cells import require_obs
from c2s_jax.cells.errors import CellDataError
from c2s_jax.data import corpus_format as fmt
from data_pipeline.readers import CellTable, GeneNaming, SomaOptions, open_cells


@dataclass(frozen=True)
class Source:
    """One data set and how to read it.

    Attributes
    ----------
    data : AnnData, or path of cells in one of `data_pipeline.readers.FORMATS`
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
    captions : dict of str to sequence of str
        Texts about the cells of each value of `caption_field`.
    caption_field : str
    questions : sequence of (question, answer)
        About the data set.
    control : str
        Value of the field ``perturbation`` that means untreated; "" for none.
    perturbation_separator : str
        What stands between the parts of a combined perturbation, e.g. "+"; see `combined`. "" for no combinations.
    radius : float, optional
        Cells within it are neighbours, in `spatial_unit`.
    spatial_unit : str
        Of the coordinates, e.g. "µm".
    section : str, optional
        Column of ``obs`` that tells apart parts with coordinates of their own: sections, slides, fields of view. Cells
        of two are no neighbours and share no tile.
    aliases : dict of str to str, or AliasTable
        Symbol of each upper-cased alias.
    genes_prefix, unknown_genes
        See `data_pipeline.readers.GeneNaming`.
    min_genes, min_cells : int
        Cells with fewer expressed genes and genes in fewer cells are left out.
    pseudobulk : sequence of str
        Fields whose combinations give the rows of a second data set ``<name>_pseudobulk``, of summed counts.
    format : str, optional
        One of `data_pipeline.readers.FORMATS`; None to find out.
    soma : SomaOptions, optional
    """

    data: ad.AnnData | str | Path
    name: str
    organism: str = ""
    obs_columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    abstracts: Sequence[str] = ()
    spatial_key: str | None = None
    expression: Mapping[str, Any] = field(default_factory=dict)
    captions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    caption_field: str = "cell_type"
    questions: Sequence[tuple[str, str]] = ()
    control: str = ""
    perturbation_separator: str = ""
    radius: float | None = None
    spatial_unit: str = ""
    section: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    genes_prefix: str | None = None
    unknown_genes: Literal["keep", "drop"] = "keep"
    min_genes: int = 0
    min_cells: int = 0
    pseudobulk: Sequence[str] = ()
    format: str | None = None
    soma: SomaOptions | None = None

    def __post_init__(self) -> None:
        check_fields([*self.obs_columns, *self.constants, *self.pseudobulk, self.caption_field])
        twice = sorted(set(self.obs_columns) & set(self.constants))
        if twice:
            raise ValueError(f"{twice[0]!r} of {self.name} is given both as a column and as a constant: choose one")
        given = {*self.obs_columns, *self.constants, "organism"}
        absent = [field for field in self.pseudobulk if field not in given]
        if absent:
            raise ValueError(f"pseudobulk of {self.name} is by {absent[0]!r}, for which no column is given")
        if self.captions and self.caption_field not in given:
            raise ValueError(f"captions of {self.name} are of {self.caption_field!r}, for which no column is given")
        if self.control and "perturbation" not in given:
            raise ValueError(f"control of {self.name} is {self.control!r}, but no column is given for 'perturbation'")
        if self.perturbation_separator and "perturbation" not in given:
            raise ValueError(f"perturbation_separator of {self.name}, but no column is given for 'perturbation'")
        if self.radius is not None and (self.spatial_key is None or not self.radius > 0):
            raise ValueError(f"radius of {self.name} is {self.radius}: it must be positive, with a key of coordinates")
        if self.spatial_unit and self.spatial_key is None:
            raise ValueError(f"spatial_unit of {self.name} is {self.spatial_unit!r}, but no spatial_key is given")
        if self.section is not None and self.spatial_key is None:
            raise ValueError(f"section of {self.name} is {self.section!r}, but no key of coordinates is given")
        if min(self.min_genes, self.min_cells) < 0:
            raise ValueError(f"min_genes and min_cells of {self.name} must not be negative")

    @property
    def names(self) -> tuple[str, ...]:
        """What its data sets are called in the corpus: its own name and, if sums are asked for, that of the sums."""
        return (self.name, f"{self.name}_pseudobulk") if self.pseudobulk else (self.name,)

    @property
    def file(self) -> str | None:
        """Name of the file, without its folder; None for data in memory."""
        return None if isinstance(self.data, ad.AnnData) else Path(self.data).name

    def open(self, scratch: str | Path | None = None) -> CellTable:
        """The data set, to be read by blocks.

        Parameters
        ----------
        scratch
            See `data_pipeline.readers.open_cells`.

        Raises
        ------
        FileNotFoundError, ValueError
            If it cannot be read; the message names the file and what in it.
        """
        return open_cells(
            self.data,
            name=self.name,
            format=self.format,
            layer=self.expression.get("layer"),
            use_raw=self.expression.get("use_raw"),
            naming=GeneNaming(self.expression.get("gene_column"), self.genes_prefix, self.aliases, self.unknown_genes),
            soma=self.soma,
            scratch=scratch,
        )

    def texts(self, obs: pd.DataFrame) -> dict[str, NDArray]:
        """Text of each known field for the cells of `obs`, object [C]; "" where there is no value.

        Raises
        ------
        ValueError
            If `obs` lacks a column.
        """
        require_obs(obs, list(self.obs_columns.values()))
        texts = {name: _texts(obs[column]) for name, column in self.obs_columns.items()}
        constants = {"organism": self.organism, **self.constants}
        for name, value in constants.items():
            if value and name not in texts:
                texts[name] = np.full(len(obs), _clean(value), dtype=object)
        if self.perturbation_separator:
            codes, values = pd.factorize(texts["perturbation"])
            one_way = [combined(value, self.perturbation_separator, self.control) for value in values]
            texts["perturbation"] = np.array(one_way, dtype=object)[codes]
        return texts

    def sections(self, obs: pd.DataFrame) -> NDArray:
        """Section of each cell of `obs`, object [C]; there is a column of them.

        Raises
        ------
        ValueError
            If `obs` lacks the column, or a cell has no value in it.
        """
        try:
            require_obs(obs, [str(self.section)], allow_missing=False)
        except CellDataError as error:
            raise CellDataError(f"spatial: section: {error}") from None
        return _texts(obs[self.section])


def combined(perturbation: str, separator: str, control: str = "") -> str:
    """A combination written in one way, whatever the order of its parts: "IL6+IFNB" and "IFNB+IL6" are "IFNB + IL6".

    Parts that are the control say nothing and are left out ("ctrl+IFNB" is "IFNB"), unless there is no other.
    """
    parts = sorted({part.strip() for part in perturbation.split(separator)} - {""})
    return fmt.COMBINED.join(part for part in parts if part != control) or (control if parts else "")


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
