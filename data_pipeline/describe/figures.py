"""Pictures of a corpus, in the style of the reports on runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells import RankExpression
from c2s_jax.data.corpus import Corpus
from c2s_jax.report import Figure, rank_expression
from c2s_jax.report.style import ACCENT, INK, MUTED, PALE, WARM, canvas, shortened, styled, to_png
from data_pipeline.describe.contents import group_sizes
from data_pipeline.describe.counts import LABELS, all_cells, label_counts

_ROWS = 24
_BARS = 30
_BINS = 60
_WIDE = 30  # the ratio of medians beyond which an axis is logarithmic
_FIT_CELLS = 1000
_FITS_SHOWN = 3
_SPLIT_COLOURS = (ACCENT, WARM, PALE, MUTED)


def genes_figure(corpus: Corpus) -> Figure:
    """Distribution of the number of genes a cell, by data set."""
    splits = all_cells(corpus)
    ids, n_genes = (np.concatenate([getattr(c, name) for c in splits]) for name in ("dataset_ids", "n_genes"))
    sizes = np.bincount(ids, minlength=len(corpus.datasets))
    values = {corpus.datasets[i]["name"]: n_genes[ids == i] for i in np.argsort(-sizes, kind="stable").tolist()}
    medians = [np.median(counts) for counts in values.values() if len(counts)]
    return ridges(
        values,
        title="Genes a cell",
        axis_label="expressed genes",
        caption="All splits. Cells with few genes make short sentences.",
        section="Cells",
        log=max(medians, default=1) > _WIDE * max(min(medians, default=1), 1),
    )


def sample_figure(corpus: Corpus) -> Figure:
    """Distribution of the size of samples, by split."""
    values = {cells.split: group_sizes(cells.groups) for cells in all_cells(corpus)}
    return ridges(
        values,
        title="Cells a sample",
        axis_label="cells with the same donor and tissue",
        caption="Samples are what the tasks of several cells draw from.",
        section="Samples and neighbourhoods",
        log=True,
    )


def neighbour_figure(corpus: Corpus) -> Figure | None:
    """Distribution of the number of neighbours a cell, by split; None without neighbours."""
    values = {}
    for cells in all_cells(corpus):
        if cells.neighbours is not None:
            near = np.isin(cells.dataset_ids, [i for i, d in enumerate(corpus.datasets) if d.get("radius")])
            values[cells.split] = np.diff(cells.neighbours[0])[near]
    if not any(map(len, values.values())):
        return None
    return ridges(
        values,
        title="Neighbours a cell",
        axis_label="cells within the radius",
        caption="Counted within each split: cells whose neighbours went to another split have fewer.",
        section="Samples and neighbourhoods",
    )


def label_figures(corpus: Corpus) -> list[Figure]:
    """Cells of each value of the fields that serve as labels."""
    figures = []
    for field in LABELS:
        names, counts = label_counts(all_cells(corpus), field)
        if len(names) > 1:
            figures.append(bars(names, counts, corpus.splits, field.replace("_", " ").capitalize()))
    return figures


def fit_figures(corpus: Corpus) -> list[Figure]:
    """Rank and expression of the largest data sets, with the fitted line."""
    cells = corpus.cells(corpus.splits[0])
    sizes = np.bincount(cells.dataset_ids, minlength=len(corpus.datasets))
    figures = []
    for number in np.argsort(-sizes, kind="stable")[:_FITS_SHOWN].tolist():
        own = np.flatnonzero(cells.dataset_ids == number)
        if not len(own):
            continue
        block = cells.take(own[:: max(1, len(own) // _FIT_CELLS)])
        ranks = np.arange(len(block.genes)) - np.repeat(block.indptr[:-1], np.diff(block.indptr))
        entry = corpus.datasets[number]
        fit = RankExpression(**entry["rank_expression"])
        figure = rank_expression(ranks, block.expression.astype(np.float32), fit, dataset=entry["name"])
        figures.append(dataclasses.replace(figure, section="Rank and expression"))
    return figures


def token_figure(lengths: Mapping[str, NDArray[np.int64]]) -> Figure | None:
    """Distribution of the tokens of examples, by task; None where they were not measured."""
    if not lengths:
        return None
    return ridges(
        {task: tokens[:, 1] for task, tokens in lengths.items()},
        title="Tokens an example",
        axis_label="tokens of prompt and response, whole sentences",
        caption="Examples longer than data.seq_len lose genes.",
        section="Tasks",
        log=True,
    )


def ridges(
    values: Mapping[str, NDArray[Any]], *, title: str, axis_label: str, caption: str, section: str, log: bool = False
) -> Figure:
    """Histograms of whole numbers, one above the other on one axis."""
    every = [name for name in values if len(values[name])]
    names = every[:_ROWS]
    edges = _edges(np.concatenate([values[name] for name in names]), log)
    with styled():
        figure, (axis,) = canvas(6.4, 1.1 + 0.42 * len(names))
        for row, name in enumerate(reversed(names)):
            counts = np.histogram(values[name], edges)[0]
            heights = 0.85 * counts / max(counts.max(), 1)
            axis.stairs(row + heights, edges, baseline=row, fill=True, color=ACCENT, alpha=0.75)
            axis.plot([np.median(values[name])] * 2, [row, row + 0.85], color=INK, linewidth=1)
        labels = [f"{shortened(name, 40)}  ({len(values[name]):,})" for name in reversed(names)]
        axis.set_yticks(np.arange(len(names)) + 0.3, labels)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.set_xscale("log" if log else "linear")
        axis.set_xlim(edges[0], edges[-1])
        axis.set_ylim(0, len(names))
        axis.set_xlabel(axis_label)
        axis.grid(axis="x")
        png = to_png(figure)
    notes = ["Each row is a histogram with its own height; the line is the median, n stands in brackets.", caption]
    if len(every) > len(names):
        notes.append(f"The {len(every) - len(names)} smallest are not shown.")
    if any(values[name].max() > edges[-1] for name in names):
        notes.append("The highest 0.1 % lie beyond the axis.")
    return Figure(title, " ".join(notes), png, section)


def _edges(values: NDArray[Any], log: bool) -> NDArray[np.float64]:
    """Edges of bins that hold equally many whole numbers, or on a logarithmic axis are equally wide."""
    low, high = values.min(), values.max() if log else np.quantile(values, 0.999)
    if log:
        return np.geomspace(max(low, 1) * 0.8, high * 1.1, _BINS)
    step = max(1, int(np.ceil((high - low) / _BINS)))
    return np.arange(low - 0.5, high + step + 0.5, step)


def bars(names: Sequence[str], counts: NDArray[np.int64], splits: Sequence[str], title: str) -> Figure:
    """Cells of each value as bars in parts, one a split."""
    shown = min(len(names), _BARS)
    with styled():
        figure, (axis,) = canvas(6.4, 1.2 + 0.22 * shown)
        start = np.zeros(shown)
        for split, column, colour in zip(splits, counts[:shown].T, _SPLIT_COLOURS):
            axis.barh(np.arange(shown), column, left=start, color=colour, label=split, height=0.72)
            start += column
        axis.set_yticks(range(shown), [shortened(name, 40) for name in names[:shown]])
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(shown - 0.4, -0.6)
        axis.set_xlabel("cells")
        axis.grid(axis="x")
        axis.legend(loc="lower right")
        png = to_png(figure)
    total, largest = int(counts.sum()), int(counts[0].sum())
    caption = f"n = {total:,} cells with a value; the most frequent of {len(names):,} values has {largest / total:.0%}."
    if len(names) > shown:
        caption += f" The {len(names) - shown:,} rarest are not shown."
    return Figure(title, caption, png, "Labels")
