"""Tables as text for a terminal."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup, escape

from c2s_jax.report import Table

_WIDEST = 60
_LINE = 118


def text_of(tables: Iterable[Table]) -> str:
    """Tables under the headings of their sections."""
    out: list[str] = []
    section = ""
    for table in tables:
        if table.section != section:
            section = table.section
            out += [section, "=" * len(section), ""]
        rows = [[shown(value) for value in row] for row in table.rows]
        prose = any("\n" in value or len(value) > _LINE for row in rows for value in row)
        out += [table.title, *(_blocks(table.header, rows) if prose else _grid([list(table.header), *rows]))]
        out += [*textwrap.wrap(table.caption, _LINE), ""]
    return "\n".join(out)


def shown(value: Any) -> str:
    """A cell of a table as text: numbers short, missing ones a dash."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if hasattr(value, "__index__") else str(value)


def for_page(table: Table) -> Table:
    """The same table with columns of words marked as such: they stand at the left and keep their line breaks."""
    words = [any(isinstance(v, str) and any(map(str.isalpha, v)) for v in column) for column in zip(*table.rows)]
    rows = [[row[0], *(_marked(v) if word else v for v, word in zip(row[1:], words[1:]))] for row in table.rows]
    return replace(table, rows=rows)


def _marked(value: Any) -> Any:
    return Markup("<br>").join(escape(line) for line in shown(value).split("\n"))


def _grid(grid: list[list[str]]) -> list[str]:
    """Columns side by side, those of numbers flush right."""
    numbers = [all(value[:1].isdigit() or value[:1] in "-–" for value in column[1:]) for column in zip(*grid)]
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*grid)]
    lines = []
    for row in grid:
        cells = [v.rjust(w) if right else v.ljust(w) for v, w, right in zip(row, widths, numbers)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _blocks(header: Sequence[str], rows: list[list[str]]) -> list[str]:
    """Long texts under the name of their row, each beside that of its column."""
    width = max(map(len, header[1:]))
    lines = []
    for name, *texts in rows:
        lines.append(f"  {name}")
        for column, text in zip(header[1:], texts):
            wrapped = [w for line in text.split("\n") for w in textwrap.wrap(line, _LINE - width) or [""]]
            lines += [f"    {(column if i == 0 else ''):{width}}  {line}" for i, line in enumerate(wrapped)]
    return lines
