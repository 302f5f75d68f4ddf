"""Names for the genes of a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from c2s_jax.cells import CellDataError
from c2s_jax.cells.aliases import AliasTable, rename_aliases
from c2s_jax.cells.errors import shown
from c2s_jax.cells.genes import gene_symbols
from c2s_jax.cells.species import one_species, species_tags, strip_prefix

from .errors import ReadError
from .table import CellTable

_GENOME = "genome"
_IDENTIFIERS = ("gene_ids", "gene_id", "feature_id", "ensembl_id", "ensembl")


@dataclass(frozen=True)
class GeneNaming:
    """Which genes are read and what they are called.

    Attributes
    ----------
    column : str, optional
        Column of var with the symbols; None to find out.
    prefix : str, optional
        Of the names of the species to read, where there are several.
    aliases : dict of upper-cased alias to symbol, or AliasTable
    unknown : "keep" or "drop"
        What becomes of names that are no approved symbols after that. To drop them takes an AliasTable that has all
        approved symbols.
    """

    column: str | None = None
    prefix: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    unknown: Literal["keep", "drop"] = "keep"


def name_genes(table: CellTable, naming: GeneNaming) -> None:
    """Set `symbols` of the table, leave out genes as `naming` says, and report it.

    Raises
    ------
    ReadError
        If the genes cannot be named; the message names the file.
    """
    if naming.unknown == "drop" and not (isinstance(naming.aliases, AliasTable) and naming.aliases.complete):
        raise ReadError(
            f"{table.name}: unknown_genes='drop' needs aliases with all approved symbols, as HGNC's complete set has "
            "them; give such a table as aliases, or leave unknown_genes out"
        )
    try:
        prefix = _choose_species(table, naming.prefix)
        names = gene_symbols(table.var, naming.column, table.report)
        # symbols in a column of their own may have the prefix too
        table.symbols = strip_prefix(names, prefix) if prefix else names
        table.symbols, known, said = rename_aliases(table.symbols, naming.aliases)
        table.report.extend(said)
        if naming.unknown == "drop":
            dropped = shown(table.symbols[i] for i in np.flatnonzero(~known))
            table.select_genes(known, f"names that are no approved symbols are left out: {dropped}")
    except ReadError:
        raise
    except CellDataError as error:
        raise ReadError(f"{table.name}: {error}") from error


def _choose_species(table: CellTable, asked: str | None) -> str | None:
    names = [str(name) for name in table.var.index]
    prefix, keep, left_out = one_species(names, asked, _tags(table.var, names, asked))
    stripped = strip_prefix(names, prefix) if prefix else names
    if stripped != names:
        table.var = table.var.set_axis(pd.Index(stripped, dtype=object), axis=0)
        table.report.append(f"names of genes lose the prefix {prefix}_")
    table.select_genes(keep, left_out)
    return prefix


def _tags(var: pd.DataFrame, names: list[str], asked: str | None) -> list[str]:
    """Species of each gene: from its name or, where names do not tell, from its genome or identifier."""
    tags = species_tags(names)
    if any(tags):
        return tags
    if _GENOME in var and (var[_GENOME].nunique() > 1 or asked in set(var[_GENOME])):
        return [str(genome) for genome in var[_GENOME]]
    for column in _IDENTIFIERS:
        if column in var:
            return species_tags([str(name) for name in var[column]])
    return tags
