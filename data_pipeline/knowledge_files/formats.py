"""One reader for each source of interactions; all give the same table.

The table has the columns ``a``, ``b`` (symbols, those of a complex joined by "+"), ``kind`` and ``source``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from c2s_jax.cells.text_files import KnowledgeError
from data_pipeline.knowledge_files.tables import read_columns, read_header

_CELLPHONEDB_KINDS = {
    "Ligand-Receptor": "ligand-receptor",
    "Adhesion-Adhesion": "adhesion",
    "Gap-Gap": "gap junction",
    "Ligand-Ligand": "ligand-ligand",
    "Receptor-Receptor": "receptor-receptor",
}
# Symbols of one species are those of another in databases of many: only these two can be told from the corpus' genes.
_TAXA = ("9606", "10090")


@dataclass(frozen=True)
class Format:
    """How a source is recognised and read.

    Attributes
    ----------
    name
        As users know it.
    columns
        A file with these in its header is of this format.
    read
        Function of the path and of the resource asked for ("" = default).
    """

    name: str
    columns: frozenset[str]
    read: Callable[[Path, str], pd.DataFrame]


def cellphonedb(path: Path, resource: str = "") -> pd.DataFrame:
    """Read ``interaction_input.csv`` of CellPhoneDB v5 with ``gene_input.csv`` and ``complex_input.csv`` beside it.

    Ligands that are no proteins stand there as their enzymes and transporters; their kind is "enzyme-receptor".
    """
    table = read_columns(path, ["partner_a", "partner_b"], ["directionality"])
    genes = read_columns(_beside(path, "gene_input.csv"), ["uniprot", "gene_name"])
    subunits = [f"uniprot_{i}" for i in range(1, 6)]
    complexes = read_columns(_beside(path, "complex_input.csv"), ["complex_name", *subunits])
    of_protein = dict(zip(genes["uniprot"], genes["gene_name"]))
    names = dict(of_protein)
    for line, complex_name, *proteins in complexes.itertuples():
        if unknown := [protein for protein in proteins if protein and protein not in of_protein]:
            raise KnowledgeError(
                f"{_beside(path, 'complex_input.csv')}, line {line}: protein {unknown[0]} of {complex_name} is not in "
                "gene_input.csv; take the files of one release"
            )
        names[complex_name] = "+".join(of_protein[protein] for protein in proteins if protein)
    sides = {side: _translated(path, table[f"partner_{side}"], names) for side in "ab"}
    directionality = table.get("directionality", pd.Series("Ligand-Receptor", table.index))
    kind = directionality.map(_CELLPHONEDB_KINDS)
    if kind.isna().any():
        line = kind.index[kind.isna()][0]
        raise KnowledgeError(
            f"{path}, line {line}: directionality {directionality[line]!r}; known are {', '.join(_CELLPHONEDB_KINDS)}"
        )
    made = table["partner_a"].str.contains(r"_by[A-Z]") & (kind == "ligand-receptor")
    return _table(sides["a"], sides["b"], np.where(made, "enzyme-receptor", kind), "CellPhoneDB")


def cellchat(path: Path, resource: str = "") -> pd.DataFrame:
    """Read CellChatDB's interactions as R writes them.

    Version 2 has the symbols of complexes; version 1 needs its complexes in ``complex.csv`` beside the file.
    """
    table = read_columns(path, ["ligand", "receptor"], ["ligand.symbol", "receptor.symbol"])
    if {"ligand.symbol", "receptor.symbol"} <= set(table.columns):
        sides = [table[f"{side}.symbol"].str.replace(r"\s*,\s*", "+", regex=True) for side in ("ligand", "receptor")]
    else:
        complexes = read_columns(
            _beside(path, "complex.csv"), ["", "subunit_1"], [f"subunit_{i}" for i in (2, 3, 4, 5)]
        )
        names = {name: "+".join(filter(None, subunits)) for _, name, *subunits in complexes.itertuples()}
        sides = [table[side].map(lambda partner: names.get(partner, partner)) for side in ("ligand", "receptor")]
    return _table(_filled(path, sides[0]), _filled(path, sides[1]), "ligand-receptor", "CellChat")


def liana(path: Path, resource: str = "") -> pd.DataFrame:
    """Read LIANA's ``omni_resource.csv``; of its resources, "consensus" or the one asked for."""
    table = read_columns(path, ["source_genesymbol", "target_genesymbol", "resource"])
    wanted = resource or "consensus"
    chosen = table[table["resource"] == wanted]
    if not len(chosen):
        raise KnowledgeError(
            f"{path}: no resource {wanted!r}; it has {', '.join(sorted(set(table['resource'])))}. "
            "Name one after the file: FILE:RESOURCE"
        )
    a, b = (_filled(path, chosen[f"{side}_genesymbol"]).str.replace("_", "+") for side in ("source", "target"))
    return _table(a, b, "ligand-receptor", f"LIANA {wanted}")


def pairs(path: Path, resource: str = "") -> pd.DataFrame:
    """Read a table of ``ligand`` and ``receptor``, the symbols of a complex joined by "_" or "+"."""
    table = read_columns(path, ["ligand", "receptor"])
    a, b = (_filled(path, table[side]).str.replace("_", "+") for side in ("ligand", "receptor"))
    return _table(a, b, "ligand-receptor", path.name.split(".")[0])


def biogrid(path: Path, resource: str = "") -> pd.DataFrame:
    """Read BioGRID's TAB 3 (or 2): its physical interactions of human or of mouse genes."""
    symbols = [f"Official Symbol Interactor {side}" for side in "AB"]
    table = read_columns(
        path,
        [*symbols, "Experimental System Type"],
        [f"{name} Interactor {side}" for name in ("Organism ID", "Organism") for side in "AB"],
    )
    keep = (table["Experimental System Type"] == "physical") & (table[symbols] != "-").all(axis=1)
    taxa = [name for name in table.columns if name.startswith("Organism")]
    table = table[keep & _same_species(table, taxa)]
    return _table(_filled(path, table[symbols[0]]), _filled(path, table[symbols[1]]), "physical", "BioGRID")


def mitab(path: Path, resource: str = "") -> pd.DataFrame:
    """Read PSI-MI TAB (2.5 to 2.8), as IntAct, MINT and BioGRID give it; genetic and negative results are left out.

    The symbol is the alias marked "gene name" or "display_short", or BioGRID's second alternative identifier.
    """
    header = read_header(path)  # columns have fixed places and names that differ between databases
    if len(header) < 15:
        raise KnowledgeError(f"{path}: {len(header)} columns, a MITAB file has 15 or more")
    alternatives, aliases, taxa, kind = header[2:4], header[4:6], header[9:11], header[11]
    negative = [name for name in header[15:] if name.lower() == "negative"]
    table = read_columns(path, [*alternatives, *aliases, *taxa, kind, *negative])
    keep = ~table[kind].str.contains("genetic|suppress|epistasis", case=False)
    for name in negative:
        keep &= table[name].str.lower() != "true"
    codes = table[taxa].apply(lambda column: column.str.extract(r"taxid:(-?\d+)", expand=False))
    table = table[keep & _same_species(codes, taxa)]
    a, b = (_mitab_symbol(table[alias], table[other]) for alias, other in zip(aliases, alternatives))
    known = a.notna() & b.notna()
    if len(table) and not known.any():
        raise KnowledgeError(f"{path}: no interactor has a gene name in {aliases[0]!r}; take a file that has them")
    return _table(a[known], b[known], "physical", path.name.split(".")[0])


FORMATS = (
    Format("CellPhoneDB's interaction_input.csv", frozenset({"partner_a", "partner_b"}), cellphonedb),
    Format("CellChatDB's interactions", frozenset({"interaction_name", "ligand", "receptor"}), cellchat),
    Format("LIANA's omni_resource.csv", frozenset({"source_genesymbol", "target_genesymbol"}), liana),
    Format("a table of ligand and receptor", frozenset({"ligand", "receptor"}), pairs),
    Format("BioGRID TAB 3", frozenset({"official symbol interactor a", "official symbol interactor b"}), biogrid),
    Format("PSI-MI TAB", frozenset({"id interactor a", "id interactor b"}), mitab),
)


def format_of(path: Path) -> Format:
    """The format of a file, by its header.

    Raises
    ------
    KnowledgeError
        If it is none of those known.
    """
    if path.suffix.lower() in (".rda", ".rds"):
        raise KnowledgeError(
            f"{path} is a file of R: write its tables as CSV, in R: write.csv(CellChatDB.human$interaction, "
            "'interaction.csv'); write.csv(CellChatDB.human$complex, 'complex.csv')"
        )
    header = {name.lower().replace("(s)", "") for name in read_header(path)}
    for known in FORMATS:
        if known.columns <= header:
            return known
    names = "; ".join(f"{known.name} ({', '.join(sorted(known.columns))})" for known in FORMATS)
    raise KnowledgeError(f"{path} is of no known format. By their columns, these are read: {names}")


def _beside(path: Path, name: str) -> Path:
    other = path.with_name(name)
    if not other.is_file():
        raise KnowledgeError(f"{path} needs {name} of the same release in the same folder")
    return other


def _table(a: pd.Series, b: pd.Series, kind: str | ArrayLike, source: str) -> pd.DataFrame:
    return pd.DataFrame({"a": a, "b": b}).assign(kind=kind, source=source)


def _translated(path: Path, partners: pd.Series, names: Mapping[str, str]) -> pd.Series:
    genes = partners.map(names)
    if genes.isna().any():
        line = genes.index[genes.isna()][0]
        raise KnowledgeError(
            f"{path}, line {line}: {partners[line]!r} is neither in gene_input.csv nor in complex_input.csv; take the "
            "files of one release, or remove this line"
        )
    return genes


def _filled(path: Path, symbols: pd.Series) -> pd.Series:
    if (symbols == "").any():
        line = symbols.index[symbols == ""][0]
        raise KnowledgeError(f"{path}, line {line}: no {symbols.name}; fill it in or remove this line")
    return symbols


def _same_species(table: pd.DataFrame, taxa: Sequence[str]) -> pd.Series:
    if not taxa:
        return pd.Series(True, table.index)
    return (table[taxa[0]] == table[taxa[1]]) & table[taxa[0]].isin(_TAXA)


def _mitab_symbol(aliases: pd.Series, alternatives: pd.Series) -> pd.Series:
    alias = r'(?:^|\|)[^|:]*:"?([^|"()]+)"?\(%s\)'
    symbol = aliases.str.extract(alias % "gene name", expand=False)
    locus = alternatives.str.extract(r"entrez gene/locuslink:([^|]+)", expand=False)
    short = aliases.str.extract(alias % "display_short", expand=False)
    return symbol.where(symbol.notna(), locus.where(locus.notna(), short))
