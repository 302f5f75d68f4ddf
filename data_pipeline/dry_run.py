"""What a build would do, and everything that stands against it, without doing it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells import require_obs
from c2s_jax.cells.conversion import conversion
from c2s_jax.cells.errors import CellDataError, shown
from c2s_jax.cells.expression import kept_rows
from c2s_jax.cells.genes import GeneColumns, gene_columns
from c2s_jax.cells.species import latin_name
from c2s_jax.cells.statistics import measure, select
from data_pipeline import jobs
from data_pipeline.allocation import by_group, cells_of
from data_pipeline.duplicates import Copies
from data_pipeline.pseudobulk import check_counts
from data_pipeline.readers import CellTable
from data_pipeline.records import Codes
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
    annotation: "_Annotation | None" = None

    def add(self, what: str, text: str) -> None:
        self.lines.append(f"  {what:<12} {text}")

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Note what is wrong, and go on after it."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.problems.append(str(error.args[-1] if error.args else error))


@dataclass(frozen=True)
class _Annotation:
    """What the choice of splits asks of a data set, see `allocation.Annotated`; all cells count as kept."""

    number: int
    source: Source
    kept: NDArray[np.bool_]
    fields: Mapping[str, Codes]
    coordinates: NDArray[np.float32]
    sections: Codes | None

    def field(self, name: str) -> Codes:
        return self.fields.get(name, Codes(np.zeros(len(self.kept), np.uint8), np.array([""])))


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
    examined = [_examined(source, number, build.top_k) for number, source in enumerate(sources)]
    known = [found.annotation for found in examined if found.annotation is not None]
    if not general.problems and len(known) == len(sources):
        _splits(general, known, build)
    wrong = list(dict.fromkeys(general.problems))
    lines = [f"PROBLEM {problem}" for problem in wrong]
    cells = n_bytes = 0
    for source, found in zip(sources, examined, strict=True):
        lines += [source.name, *found.lines, *(f"  {'PROBLEM':<12} {problem}" for problem in found.problems), ""]
        wrong += found.problems
        cells += found.cells
        n_bytes += found.bytes
    lines.append(f"{_counted(len(sources), 'data set')}, {_counted(cells, 'cell')}, about {_size(n_bytes)}")
    lines.append(f"{_counted(len(wrong), 'problem')} found" if wrong else "No problems found")
    return "\n".join(lines), len(wrong)


def _splits(found: _Findings, datasets: Sequence[_Annotation], options: jobs.BuildOptions) -> None:
    """What stands against the splits asked for, copies of cells and cells left out aside."""
    for condition in options.held_out:
        with found.catching():
            cells_of(datasets, condition)
    if options.split_by != "cell":
        copies = Copies([np.full(len(dataset.kept), -1) for dataset in datasets], np.zeros(0, np.uint64))
        with found.catching():
            by_group(datasets, copies, options)


def _examined(source: Source, number: int, top_k: int | None) -> _Findings:
    found = _Findings()
    with found.catching(), source.open() as table:
        found.cells = table.n_cells
        found.add("format", f"{table.format}, {table.n_cells:,} cells × {table.n_genes:,} genes")
        for line in table.report:
            found.add("note", line)
        found.add("genes", shown(table.symbols))
        with found.catching():
            _expression(found, source, table, top_k)
        known = len(found.problems)
        fields = _fields(found, source, table.obs)
        _organism(found, source.organism, table.obs)
        with found.catching():
            places, sections = _coordinates(found, source, table)
        if len(found.problems) == known:
            coded = {name: Codes.of(texts) for name, texts in fields.items()}
            found.annotation = _Annotation(number, source, np.ones(table.n_cells, bool), coded, places, sections)
        _texts(found, source, {name: set(pd.unique(texts)) - {""} for name, texts in fields.items()})
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
    if source.pseudobulk:
        with found.catching():
            check_counts(statistics)
    if table.matrix.samples_whole_rows:
        with found.catching():
            _quality(source, table, sample, columns)


def _quality(source: Source, table: CellTable, sample: sparse.csr_matrix, columns: GeneColumns) -> None:
    """Raise for limits that nothing can pass, and for sampled cells that express nothing where that is an error."""
    limits = {"min_genes": source.min_genes, "min_cells": source.min_cells}
    statistics = measure(sample, columns, **limits)
    unread = table.n_cells - sample.shape[0]
    # each gene may be in all cells that were not read
    statistics = replace(statistics, gene_cells=statistics.gene_cells + unread)
    empty_cells = source.expression.get("empty_cells", "error")
    try:
        selection = select(statistics, **limits)
        kept_rows(selection.n_genes[selection.cells], lambda i: f"number {i}", table.matrix_name, empty_cells, [])
    except CellDataError as error:
        where = f"in {sample.shape[0]:,} sampled cells: " if unread else ""
        raise CellDataError(f"{where}{error}") from None


def _wrong_values(sample: sparse.csr_matrix) -> str:
    """What in a sample is no expression."""
    if not sample.nnz:
        return "holds no expressed gene in the cells sampled"
    values = sample.data
    counts = {"NaN": np.isnan(values), "infinite": np.isinf(values), "negative (scaled or corrected?)": values < 0}
    listed = [f"{int(wrong.sum())} are {what}" for what, wrong in counts.items() if wrong.any()]
    return f"cannot be ranked: of {len(values)} values sampled, {' and '.join(listed)}" if listed else ""


def _fields(found: _Findings, source: Source, obs: pd.DataFrame) -> dict[str, NDArray]:
    """Text of each field whose column there is, object [C]."""
    lacking: dict[str, str] = {}
    for name, column in source.obs_columns.items():
        try:
            require_obs(obs, [column])
        except ValueError as error:
            found.problems.append(str(error))
            lacking[name] = column
    given = source.texts(obs.assign(**dict.fromkeys(lacking.values(), "")) if lacking else obs)
    texts = {name: values for name, values in given.items() if name not in lacking}
    counted = {name: pd.Series(values).value_counts() for name, values in texts.items()}
    for name, counts in counted.items():
        origin = f"{name} ← obs[{source.obs_columns[name]!r}]" if name in source.obs_columns else name
        empty = int(counts.get("", 0))
        counts = counts.drop("", errors="ignore")
        values = ", ".join(f"{value} ({n:,})" for value, n in counts.head(_SHOWN_VALUES).items())
        more = ", …" if len(counts) > _SHOWN_VALUES else ""
        without = f"; {_counted(empty, 'cell')} without" if empty else ""
        found.add("field", f"{origin}: {_counted(len(counts), 'value')}: {values}{more}{without}")
        if empty == len(obs):
            found.problems.append(f"{name}: no cell has a value in obs[{source.obs_columns[name]!r}]")
    return texts


def _organism(found: _Findings, organism: str, obs: pd.DataFrame) -> None:
    named = obs["organism"].dropna().astype(str).unique() if organism and "organism" in obs else ()
    others = sorted(name for name in named if latin_name(name) != latin_name(organism))
    if others:
        found.add("note", f"organism is {organism}, but obs['organism'] names {shown(others)}")


def _coordinates(found: _Findings, source: Source, table: CellTable) -> tuple[NDArray[np.float32], Codes | None]:
    """Positions of all cells, and their sections."""
    if source.spatial_key is None:
        return np.zeros((table.n_cells, 0), np.float32), None
    places = table.coordinates(source.spatial_key)
    low, high = places.min(axis=0), places.max(axis=0)
    extent = " × ".join(f"{size:g}" for size in high - low)
    near = f", neighbours within {source.radius:g}" if source.radius else ""
    sections = None if source.section is None else Codes.of(source.sections(table.obs))
    parts = "" if sections is None else f", {_counted(len(sections.values), 'section')} in obs[{source.section!r}]"
    found.add("coordinates", f"obsm[{source.spatial_key!r}]: {extent} {source.spatial_unit}".rstrip() + near + parts)
    return places, sections


def _texts(found: _Findings, source: Source, values: Mapping[str, Collection[str]]) -> None:
    if source.abstracts:
        found.add("texts", f"{_counted(len(source.abstracts), 'abstract')}: {source.abstracts[0][:60]!r}…")
    if source.questions:
        found.add("texts", _counted(len(source.questions), "question"))
    if source.captions:
        n_texts = _counted(sum(map(len, source.captions.values())), "caption")
        n_values = _counted(len(source.captions), "value")
        found.add(
            "texts",
            f"{n_texts} of {n_values} of {source.caption_field}",
        )
        _unmatched(found, f"captions of {source.caption_field}", source.captions, values.get(source.caption_field, ()))
    if source.control:
        _unmatched(found, "control", [source.control], values.get("perturbation", ()))


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
