"""Interactions between genes, from the files of the usual databases."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from c2s_jax.cells.text_files import KnowledgeError, open_text
from data_pipeline.knowledge_files.formats import format_of
from data_pipeline.knowledge_files.tables import read_columns, read_header

# In these, a acts on b; in others the two sides are alike.
DIRECTED = ("ligand-receptor", "enzyme-receptor")
_SYMBOL_COLUMNS = ("symbol", "approved symbol", "hgnc_symbol", "gene_name", "gene")


@dataclass(frozen=True)
class Interaction:
    """Two genes, or complexes of several, whose products interact.

    Attributes
    ----------
    source
        Database.
    kind
        "ligand-receptor"; "enzyme-receptor" (what makes a ligand that is no protein, and the ligand's receptor);
        "adhesion", "gap junction", "ligand-ligand", "receptor-receptor"; "physical".
    a, b
        Symbols, upper-cased; all genes of a complex. In the first two kinds a acts on b.
    """

    source: str
    kind: str
    a: tuple[str, ...]
    b: tuple[str, ...]


def read_interactions(paths: Iterable[str | Path], extracellular: str | Path | None = None) -> list[Interaction]:
    """Read files of interactions, each in the format that its header shows.

    Parameters
    ----------
    paths
        CellPhoneDB v5 (``interaction_input.csv``, its other tables beside it), CellChatDB as CSV, LIANA
        (``omni_resource.csv``, or ``FILE:RESOURCE`` for another of its resources than "consensus"), any table with the
        columns ligand and receptor, BioGRID TAB 3, PSI-MI TAB; plain or compressed.
    extracellular
        File of genes, see `read_extracellular`. If given, only interactions all of whose genes are in it are kept.

    Returns
    -------
    list of Interaction
        Each once, with the first source that has it.

    Raises
    ------
    KnowledgeError
        For a file of no known format, or a bad line in it.
    FileNotFoundError
        If there is no such file.
    """
    tables = [_read(str(path)) for path in paths]
    if not tables:
        return []
    table = pd.concat(tables, ignore_index=True)
    for side in ("a", "b"):
        table[side] = table[side].str.upper()
        table[f"{side}_key"] = table[side].map(lambda genes: "+".join(sorted(genes.split("+"))))
    swap = ~table["kind"].isin(DIRECTED) & (table["a_key"] > table["b_key"])
    table.loc[swap, ["a", "b", "a_key", "b_key"]] = table.loc[swap, ["b", "a", "b_key", "a_key"]].to_numpy()
    table = table.drop_duplicates(["kind", "a_key", "b_key"])
    found = [Interaction(x.source, x.kind, tuple(x.a.split("+")), tuple(x.b.split("+"))) for x in table.itertuples()]
    if extracellular is None:
        return found
    outside = read_extracellular(extracellular)
    return [interaction for interaction in found if outside.issuperset(interaction.a + interaction.b)]


def read_extracellular(path: str | Path) -> frozenset[str]:
    """Read genes whose proteins are outside the cell or on its surface.

    Parameters
    ----------
    path
        One symbol a line, or a table with a column of symbols (``symbol``, as HGNC has it, ``Approved symbol``,
        ``hgnc_symbol``, ``gene_name`` or ``gene``).

    Returns
    -------
    frozenset of str
        Upper-cased.
    """
    path = Path(path)
    header = read_header(path)
    if len(header) > 1 or header[0].lower() in _SYMBOL_COLUMNS:
        column = next((name for name in header if name.lower() in _SYMBOL_COLUMNS), None)
        if column is None:
            raise KnowledgeError(f"{path}: none of its columns is named {', '.join(_SYMBOL_COLUMNS)}")
        return frozenset(symbol.upper() for symbol in read_columns(path, [column])[column] if symbol)
    with open_text(path) as file:
        symbols = [line.strip() for line in file]
    if odd := next(((n, s) for n, s in enumerate(symbols, 1) if len(s.split()) > 1), None):
        raise KnowledgeError(f"{path}, line {odd[0]}: {odd[1]!r} is no gene symbol; expected one a line")
    return frozenset(symbol.upper() for symbol in symbols if symbol)


def _read(given: str) -> pd.DataFrame:
    path, _, resource = (given, "", "") if Path(given).exists() else given.rpartition(":")
    if not path or not Path(path).exists():
        raise FileNotFoundError(f"no file of interactions at {given}")
    return format_of(Path(path)).read(Path(path), resource)
