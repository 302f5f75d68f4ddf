"""What a build would do, and everything that stands against it, without doing it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from c2s_jax.cells import require_obs
from c2s_jax.cells.conversion import conversion
from c2s_jax.cells.errors import shown
from c2s_jax.cells.genes import GeneColumns, gene_columns
from c2s_jax.cells.species import latin_name
from c2s_jax.cells.statistics import measure
from data_pipeline import jobs
from data_pipeline.readers import CellTable
from data_pipeline.sources import Source

_SAMPLED_CELLS = 512
_SHOWN_VALUES = 5
# a gene and its expression; and what else a record has
_ENTRY_BYTES, _CELL_BYTES = 6, 150


@dataclass
class _Findings:
    """Lines about one data set, and what is wrong with it."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cells: int = 0
    bytes: int = 0

    def add(self, what: str, text: str) -> None:
        self.lines.append(f"  {what:<12} {text}")

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Note what is wrong, and go on after it."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.problems.append(str(error.args[-1] if error.args else error))


def dry_run(sources: Sequence[Source], options: Mapping[str, Any], problems: Sequence[str] = ()) -> tuple[str, int]:
    """Describe what would be built.

    Annotation is read, and some blocks of each matrix, so that files of any size take little time.

    Parameters
    ----------
    sources
    options
        Keyword arguments of `data_pipeline.build.build_corpus`.
    problems
        Known ones, for instance of the manifest.

    Returns
    -------
    (text, n)
        Data set by data set; the last line says how many problems there are, n.
    """
    chosen = {name: options[name] for name in jobs.BuildOptions.__dataclass_fields__ if name in options}
    build = jobs.BuildOptions(**{"split": (0.7, 0.1, 0.2)} | chosen)
    general = _Findings(problems=list(problems))
    for source in sources:
        with general.catching():
            jobs.check((source,), build)
    wrong = list(dict.fromkeys(general.problems))
    lines = [f"PROBLEM {problem}" for problem in wrong]
    cells = n_bytes = 0
    for source in sources:
        found = _examined(source, build.top_k)
        lines += [source.name, *found.lines, *(f"  {'PROBLEM':<12} {problem}" for problem in found.problems), ""]
        wrong += found.problems
        cells += found.cells
        n_bytes += found.bytes
    lines.append(f"{_counted(len(sources), 'data set')}, {_counted(cells, 'cell')}, about {_size(n_bytes)}")
    lines.append(f"{_counted(len(wrong), 'problem')} found" if wrong else "No problems found")
    return "\n".join(lines), len(wrong)


def _examined(source: Source, top_k: int | None) -> _Findings:
    found = _Findings()
    with found.catching(), source.open() as table:
        found.cells = table.n_cells
        found.add("format", f"{table.format}, {table.n_cells:,} cells × {table.n_genes:,} genes")
        for line in table.report:
            found.add("note", line)
        found.add("genes", shown(table.symbols))
        with found.catching():
            _expression(found, source, table, top_k)
        fields = _fields(found, source, table.obs)
        _organism(found, source.organism, table.obs)
        with found.catching():
            _coordinates(found, source, table)
        _texts(found, source, fields)
    return found


def _expression(found: _Findings, source: Source, table: CellTable, top_k: int | None) -> None:
    sample = table.sample(_SAMPLED_CELLS)
    entries = table.matrix.n_entries
    per_cell = sample.nnz / max(1, sample.shape[0]) if entries is None else entries / table.n_cells
    kept = per_cell if top_k is None else min(per_cell, top_k)
    found.bytes = int(table.n_cells * (_CELL_BYTES + _ENTRY_BYTES * kept))
    columns = GeneColumns(tuple(map(str, range(table.n_genes))), None)
    with found.catching():
        said: list[str] = []
        columns = gene_columns(table.symbols, source.expression.get("duplicates", "error"), said)
        found.lines += [f"  {'note':<12} {line}" for line in said]
    wrong = _wrong_values(sample)
    if wrong:
        other = table.usable_instead()
        found.problems.append(f"{table.matrix_name} {wrong}{other and '; usable instead: '}{other}")
        return
    statistics = measure(sample, columns)
    asked = {key: source.expression[key] for key in ("scale", "target_sum") if source.expression.get(key) is not None}
    how = conversion(statistics, statistics.totals, columns, log1p_base=table.log1p_base, **asked)
    scale = f"{how.scale.text} ({how.scale.why})"
    found.add("matrix", f"{table.matrix_name}: {scale}; about {per_cell:,.0f} genes a cell, {_size(found.bytes)}")


def _wrong_values(sample: sparse.csr_matrix) -> str:
    """What in a sample is no expression."""
    if not sample.nnz:
        return "holds no expressed gene in the cells sampled"
    values = sample.data
    counts = {"NaN": np.isnan(values), "infinite": np.isinf(values), "negative (scaled or corrected?)": values < 0}
    listed = [f"{int(wrong.sum())} are {what}" for what, wrong in counts.items() if wrong.any()]
    return f"cannot be ranked: of {len(values)} values sampled, {' and '.join(listed)}" if listed else ""


def _fields(found: _Findings, source: Source, obs: pd.DataFrame) -> dict[str, pd.Series]:
    columns: dict[str, str] = {}
    for name, column in source.obs_columns.items():
        with found.catching():
            require_obs(obs, [column])
            columns[name] = column
    texts = Source(source.data, source.name, source.organism, columns, source.constants).texts(obs)
    counted = {name: pd.Series(values).value_counts() for name, values in texts.items()}
    for name, counts in counted.items():
        origin = f"{name} ← obs[{columns[name]!r}]" if name in columns else name
        empty = int(counts.get("", 0))
        counts = counts.drop("", errors="ignore")
        values = ", ".join(f"{value} ({n:,})" for value, n in counts.head(_SHOWN_VALUES).items())
        more = ", …" if len(counts) > _SHOWN_VALUES else ""
        without = f"; {_counted(empty, 'cell')} without" if empty else ""
        found.add("field", f"{origin}: {_counted(len(counts), 'value')}: {values}{more}{without}")
        if empty == len(obs):
            found.problems.append(f"{name}: no cell has a value in obs[{columns[name]!r}]")
    return counted


def _organism(found: _Findings, organism: str, obs: pd.DataFrame) -> None:
    named = obs["organism"].dropna().astype(str).unique() if organism and "organism" in obs else ()
    others = sorted(name for name in named if latin_name(name) != latin_name(organism))
    if others:
        found.add("note", f"organism is {organism}, but obs['organism'] names {shown(others)}")


def _coordinates(found: _Findings, source: Source, table: CellTable) -> None:
    if source.spatial_key is None:
        return
    places = table.coordinates(source.spatial_key)
    low, high = places.min(axis=0), places.max(axis=0)
    extent = " × ".join(f"{size:g}" for size in high - low)
    near = f", neighbours within {source.radius:g}" if source.radius else ""
    found.add("coordinates", f"obsm[{source.spatial_key!r}]: {extent} {source.spatial_unit}".rstrip() + near)


def _texts(found: _Findings, source: Source, fields: Mapping[str, pd.Series]) -> None:
    if source.abstracts:
        found.add("texts", f"{_counted(len(source.abstracts), 'abstract')}: {source.abstracts[0][:60]!r}…")
    if source.questions:
        found.add("texts", _counted(len(source.questions), "question"))
    if source.captions:
        n_texts = _counted(sum(map(len, source.captions.values())), "caption")
        n_values = _counted(len(source.captions), "value")
        values = set(fields.get(source.caption_field, pd.Series(dtype=int)).index) - {""}
        found.add(
            "texts",
            f"{n_texts} of {n_values} of {source.caption_field}",
        )
        _unmatched(found, f"captions of {source.caption_field}", source.captions, values)
    if source.control:
        _unmatched(found, "control", [source.control], fields.get("perturbation", pd.Series(dtype=int)).index)


def _unmatched(found: _Findings, what: str, given: Any, values: Any) -> None:
    strays = [value for value in given if value not in values]
    if strays:
        found.problems.append(f"{what}: no cell has {shown(map(repr, strays))}; there are {shown(sorted(values))}")


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _size(n_bytes: int) -> str:
    units = ["B", "kB", "MB", "GB", "TB"]
    power = min(len(units) - 1, int(np.log10(max(n_bytes, 1)) // 3))
    return f"{n_bytes / 1000**power:.3g} {units[power]}"
