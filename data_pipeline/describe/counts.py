"""How many cells of what: tables of splits, data sets, fields and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.corpus import CellSource, Corpus
from c2s_jax.report import Table

LABELS = ("cell_type", "tissue", "niche", "perturbation", "disease", "organism", "assay")
_SHOWN_LABELS = 30
_SHOWN_VALUES = 3


def spread(values: NDArray[Any]) -> str:
    """Median and middle 90 % of numbers, as text."""
    if not len(values):
        return "–"
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{middle:,.0f} ({low:,.0f}–{high:,.0f})"


def all_cells(corpus: Corpus) -> list[CellSource]:
    """The splits of a corpus, in its order."""
    return [corpus.cells(split) for split in corpus.splits]


def split_table(corpus: Corpus) -> Table:
    """Cells, data sets, samples, types and genes of each split."""
    splits = all_cells(corpus)
    total = sum(map(len, splits))
    rows: list[list[Any]] = [
        [
            cells.split,
            len(cells),
            f"{len(cells) / max(total, 1):.1%}",
            len(np.unique(cells.dataset_ids)),
            len(np.unique(cells.groups)),
            len(_known(cells, "cell_type")),
            spread(cells.n_genes),
        ]
        for cells in splits
    ]
    caption = (
        f"{total:,} cells, {len(corpus.genes):,} genes. A sample is the cells of one data set with the same donor and "
        "tissue. Genes a cell: median, and the middle 90 % of cells."
    )
    return Table(
        "Splits",
        caption,
        ["", "Cells", "Share", "Data sets", "Samples", "Cell types", "Genes a cell"],
        rows,
        section="Cells",
    )


def dataset_table(corpus: Corpus) -> Table:
    """Size and fit of each data set."""
    splits = all_cells(corpus)
    of_dataset = [[cells.dataset_ids == i for cells in splits] for i in range(len(corpus.datasets))]
    rows = []
    for entry, masks in zip(corpus.datasets, of_dataset):
        fit = entry["rank_expression"]
        n_genes = np.concatenate([cells.n_genes[mask] for cells, mask in zip(splits, masks)])
        counts = [int(mask.sum()) for mask in masks]
        name, by_split = (entry["name"], entry["organism"] or "–"), "/".join(f"{n:,}" for n in counts)
        numbers = (fit[key] for key in ("r2", "r2_all", "slope", "intercept"))
        scale = entry["provenance"]["normalisation"]["scale"]
        rows.append([*name, sum(counts), by_split, spread(n_genes), scale, *numbers])
    names = "/".join(corpus.splits)
    caption = (
        f"Cells of {names}. Read as: the scale of the values in the file. R² says how much of expression the "
        "line intercept + slope · log10(1 + rank) explains, within the range of the fit and over all genes."
    )
    header = ["", "Organism", "Cells", names, "Genes a cell", "Read as", "R²", "R², all", "Slope", "Intercept"]
    return Table("Data sets", caption, header, rows, section="Cells")


def field_table(corpus: Corpus) -> Table:
    """Which text fields are known for how many cells."""
    splits = all_cells(corpus)
    total = max(sum(map(len, splits)), 1)
    rows: list[list[Any]] = []
    for field in fmt.FIELDS:
        names, counts = label_counts(splits, field)
        per_value = counts.sum(axis=1)
        top = [f"{name} ({n / total:.0%})" for name, n in zip(names[:_SHOWN_VALUES], per_value)]
        more = [f"… {len(names) - _SHOWN_VALUES:,} more"] if len(names) > _SHOWN_VALUES else []
        rows.append([field, f"{per_value.sum() / total:.1%}", len(names), ", ".join(top + more) or "–"])
    caption = "Known: share of cells with a value. Templates that use an unknown field are not used for those cells."
    return Table("Fields", caption, ["", "Known", "Values", "Most frequent"], rows, section="Cells")


def label_tables(corpus: Corpus) -> list[Table]:
    """Cells of each value, by split, of the fields that serve as labels and differ between cells."""
    tables = []
    for field in LABELS:
        names, counts = label_counts(all_cells(corpus), field)
        if len(names) < 2:
            continue
        rows: list[list[Any]] = [[name, *row] for name, row in zip(names, counts.tolist())]
        shown = rows[:_SHOWN_LABELS]
        if len(rows) > len(shown):
            rest = counts[_SHOWN_LABELS:].sum(axis=0).tolist()
            shown.append([f"… {len(rows) - _SHOWN_LABELS:,} more", *rest])
        missing = [name for name, row in zip(names, counts) if not row[0]]
        caption = f"{len(names):,} values." + (
            f" Not in {corpus.splits[0]}: {', '.join(missing[:5])}." if missing else ""
        )
        title = field.replace("_", " ").capitalize()
        tables.append(Table(title, caption, ["", *corpus.splits], shown, section="Labels"))
    return tables


def label_counts(splits: Sequence[CellSource], field: str) -> tuple[list[str], NDArray[np.int64]]:
    """Values of a field, most frequent first, and their number of cells in each split, int64 [V, S]."""
    found: dict[str, NDArray[np.int64]] = {}
    for number, cells in enumerate(splits):
        codes, values = cells.field_codes(field)
        for value, n in zip(values.tolist(), np.bincount(codes, minlength=len(values)).tolist()):
            if value and n:
                found.setdefault(value, np.zeros(len(splits), np.int64))[number] = n
    names = sorted(found, key=lambda value: (-found[value].sum(), value))
    return names, np.array([found[name] for name in names], np.int64).reshape(-1, len(splits))


def _known(cells: CellSource, field: str) -> list[str]:
    return label_counts([cells], field)[0]
