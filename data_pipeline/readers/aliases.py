"""Tables of gene aliases from files."""

from pathlib import Path

import pandas as pd

from c2s_jax.cells.aliases import AliasTable

from .errors import ReadError, reading

# column names of HGNC's and MGI's tables, lower-cased
_SYMBOLS = ("symbol", "approved_symbol", "approved symbol", "marker symbol")
_ALIASES = (
    "alias", "alias_symbol", "prev_symbol", "previous symbols", "alias symbols", "synonyms",
    "marker synonyms (pipe-separated)",
)  # fmt: skip
_STATUS = ("status",)


def read_aliases(path: str | Path) -> AliasTable:
    """Read a table of aliases.

    Parameters
    ----------
    path
        Text with tabs, compressed or not: either HGNC's complete set, or any table with a column ``symbol``
        and columns such as ``alias_symbol`` and ``prev_symbol`` of names separated by ``|`` (MGI's
        ``MRK_List2.rpt`` is one); or two columns without a head, alias and symbol. A table with rows that
        have no alias is taken to list all symbols.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ReadError
        If it is no such table.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"table of gene aliases not found: {path}")
    with reading(str(path), "a table of gene aliases"):
        table = pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3, low_memory=False)
    head = [str(name).strip().lower() for name in table.iloc[0]] if len(table) else []
    symbols = [i for i, name in enumerate(head) if name in _SYMBOLS]
    aliases = [i for i, name in enumerate(head) if name in _ALIASES]
    if symbols and aliases:
        return _with_head(table.iloc[1:], symbols[0], aliases, [i for i, name in enumerate(head) if name in _STATUS])
    if table.shape[1] != 2:
        raise ReadError(
            f"{path} is no table of gene aliases: expected a head with 'symbol' and 'alias_symbol' or 'prev_symbol', "
            f"or two columns, alias and symbol; it has {table.shape[1]} columns, the first line is {head[:6]}"
        )
    pairs = [(alias.strip(), symbol.strip()) for alias, symbol in zip(table[0], table[1], strict=True)]
    return AliasTable.of([pair for pair in pairs if all(pair)])


def _with_head(table: pd.DataFrame, symbol: int, aliases: list[int], status: list[int]) -> AliasTable:
    for column in status:
        table = table[~table[column].str.contains("withdrawn", case=False)]
    symbols = table[symbol].str.strip()
    pairs = [
        (alias.strip(), approved)
        for column in aliases
        for approved, names in zip(symbols, table[column], strict=True)
        for alias in names.strip('"').split("|")
        if alias.strip() and approved
    ]
    lists_all = (table[aliases] == "").all(axis=1).any()
    return AliasTable.of(pairs, [name for name in symbols if name and lists_all])
