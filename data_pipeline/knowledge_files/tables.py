"""Text tables, plain or compressed, read so that an error can name the line."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from c2s_jax.cells.text_files import KnowledgeError, open_text


def read_header(path: Path) -> list[str]:
    """Column names of a table; a "#" before the first is left out."""
    with open_text(path) as file:
        try:
            names = next(_rows(file))
        except (StopIteration, csv.Error):
            names = []
    if not names or not any(names):
        raise KnowledgeError(f"{path}: no header in the first line")
    return [names[0].removeprefix("#").strip(), *(name.strip() for name in names[1:])]


def read_columns(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Columns of a comma- or tab-separated table, as text without surrounding space.

    Parameters
    ----------
    needed
        Columns that must be there.
    optional
        Columns read if they are there.

    Returns
    -------
    DataFrame of str; its index are the lines of the file, from 1.

    Raises
    ------
    KnowledgeError
        If a column is missing, or a line has another number of fields than the header.
    """
    header = read_header(path)
    if missing := [name for name in needed if name not in header]:
        raise KnowledgeError(f"{path}: no column {', '.join(map(repr, missing))}; there are {', '.join(header)}")
    names = [*needed, *(name for name in optional if name in header)]
    places = [header.index(name) for name in names]
    lines: list[int] = []
    values: list[list[str]] = []
    with open_text(path) as file:
        rows = _rows(file)
        next(rows)
        try:
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise KnowledgeError(
                        f"{path}, line {rows.line_num}: {len(row)} fields, the header has {len(header)}; "
                        "correct or remove this line"
                    )
                lines.append(rows.line_num)
                values.append([row[place].strip() for place in places])
        except csv.Error as error:
            raise KnowledgeError(f"{path}, line {rows.line_num}: {error}") from error
    return pd.DataFrame(values, columns=names, index=lines, dtype=object)


def _rows(file: TextIO) -> Any:
    """Reader of the table's rows. Tab-separated files of this field use quotation marks as ordinary characters."""
    first = file.readline()
    lines = _chained(first, file)
    if "\t" in first:
        return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(lines, strict=True)


def _chained(first: str, rest: TextIO) -> Iterator[str]:
    yield first
    yield from rest
