"""Confusion matrix, rank–expression fit and distances by condition."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from c2s_jax.report.style import (
    ACCENT,
    INK,
    MUTED,
    WARM,
    Figure,
    canvas,
    checked_order,
    same_length,
    shortened,
    styled,
    to_png,
)


class RankFit(Protocol):
    """A fitted line, expression = slope · log10(1 + rank) + intercept."""

    @property
    def slope(self) -> float: ...
    @property
    def intercept(self) -> float: ...
    @property
    def r2(self) -> float: ...


def confusion_matrix(
    true: ArrayLike, predicted: ArrayLike, labels: Sequence[str] | None = None, *, unparsed: str = "unparsed"
) -> Figure:
    """Confusion matrix: rows the true label, colour the share of the row, text the number of cells.

    `labels` gives the order (alphabetical by default). Predictions that are no true cell's label come
    last, `unparsed` the very last.
    """
    truth, guess = np.asarray(true).astype(str), np.asarray(predicted).astype(str)
    same_length(true=truth, predicted=guess)
    if truth.size == 0:
        raise ValueError("a confusion matrix needs at least one cell")
    rows = [x for x in checked_order(np.unique(truth).tolist(), labels) if x != unparsed]
    columns = rows + sorted(set(guess.tolist()) - set(rows), key=lambda x: (x == unparsed, x))
    counts = np.zeros((len(rows), len(columns)), int)
    at_row, at_column = {x: i for i, x in enumerate(rows)}, {x: i for i, x in enumerate(columns)}
    np.add.at(counts, ([at_row[x] for x in truth], [at_column[x] for x in guess]), 1)
    with styled():
        png = _draw_confusion(counts, rows, columns)
    right = int((truth == guess).sum())
    caption = (
        f"n = {truth.size:,} held-out cells; {right:,} ({right / truth.size:.1%}) on the diagonal. Each row "
        "is a true cell type and sums to 1: the darker the diagonal, the better. Numbers are cells. Off the "
        "diagonal, read which type the model takes for which: neighbours in lineage are the usual pairs."
    )
    if unparsed in columns:
        caption += f" “{unparsed}” are answers that name no known cell type."
    return Figure("Cell type annotation: true against predicted", caption, png, "Annotation")


def _draw_confusion(counts: np.ndarray[Any, Any], rows: list[str], columns: list[str]) -> bytes:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = 0.47 if len(columns) <= 14 else 0.34
    figure, (axis,) = canvas(2.9 + cell * len(columns), 1.7 + cell * len(rows))
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axis.set_xticks(
        range(len(columns)), [shortened(x) for x in columns], rotation=40, ha="right", rotation_mode="anchor"
    )
    axis.set_yticks(range(len(rows)), [f"{shortened(x)}  ({n})" for x, n in zip(rows, counts.sum(1), strict=True)])
    axis.set_xlabel("predicted")
    axis.set_ylabel("true (cells)")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.2)
    axis.tick_params(which="minor", length=0)
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = "white" if share[i, j] > 0.55 else INK
        axis.text(j, i, counts[i, j], ha="center", va="center", color=colour, fontsize=8 if cell > 0.4 else 6)
    bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02, aspect=22)
    bar.outline.set_visible(False)
    bar.set_label("share of the true type")
    return to_png(figure)


def rank_expression(
    ranks: ArrayLike, expression: ArrayLike, fit: RankFit, *, limit: float = 3.0, dataset: str = ""
) -> Figure:
    """Density of (log10(1 + rank), expression) over the expressed genes of cells, and the fitted line.

    Parameters
    ----------
    ranks
        Rank of each expressed gene in its cell, 0 the highest, [N].
    expression
        Its log10(1 + normalised) expression, [N].
    fit
        Fitted line with ``slope``, ``intercept``, ``r2`` and where known ``r2_all``.
    limit
        The fit used log10(1 + rank) below this; beyond it the line is dashed.
    dataset
        Name for the title.
    """
    x, y = np.log10(1 + np.asarray(ranks, np.float64)), np.asarray(expression, np.float64)
    same_length(ranks=x, expression=y)
    if x.size == 0:
        raise ValueError("the rank–expression figure needs at least one expressed gene")
    with styled():
        figure, (axis,) = canvas(5.6, 3.7)
        bins = axis.hexbin(x, y, gridsize=(55, 34), bins="log", cmap="Blues", mincnt=1, linewidths=0.1)
        for low, high, style in ((0.0, min(limit, x.max()), "-"), (limit, x.max(), "--")):
            if high > low:
                ends = np.array([low, high])
                line = np.maximum(fit.slope * ends + fit.intercept, 0)
                axis.plot(ends, line, style, color=WARM, linewidth=1.8)
        sign = "−" if fit.intercept < 0 else "+"
        text = f"expression = {fit.slope:.3f} · log$_{{10}}$(1 + rank) {sign} {abs(fit.intercept):.3f}".replace(
            "-", "−"
        )
        text += f"\nR² = {fit.r2:.3f}"
        axis.text(0.98, 0.97, text, transform=axis.transAxes, ha="right", va="top", color=WARM, fontsize=9)
        axis.set(xlabel="log$_{10}$(1 + rank of the gene in its cell)", ylabel="log$_{10}$(1 + normalised count)")
        axis.set_ylim(0, float(y.max()) * 1.05)
        bar = figure.colorbar(bins, ax=axis, pad=0.02, aspect=25)
        bar.outline.set_visible(False)
        bar.set_label("genes × cells")
        png = to_png(figure)
    caption = (
        f"n = {x.size:,} expressed genes of cells. A cell sentence keeps only the order of genes; this line "
        f"turns a gene's place back into an expression value. R² = {fit.r2:.3f} "
        f"within log10(1 + rank) < {limit:g}"
    )
    r2_all = getattr(fit, "r2_all", None)
    caption += f", {r2_all:.3f} over all expressed genes." if r2_all is not None else "."
    title = f"From rank to expression: {dataset}" if dataset else "From rank to expression"
    return Figure(title, caption, png, "Reconstruction")


def per_condition_bars(
    generated: Mapping[str, float],
    references: Mapping[str, Mapping[str, float]],
    *,
    n: Mapping[str, tuple[int, int]] | None = None,
    measure: str = "scFID",
    space: str = "embedding",
    few: int = 10,
    section: str = "Generation",
) -> Figure:
    """Distance of generated to real cells by condition (bars), beside references (marks).

    Parameters
    ----------
    generated
        Condition → distance.
    references
        Name → condition → distance, for example ``{"real vs real": {...}, "shuffled labels": {...}}``.
    n
        Condition → (real, generated) cells.
    few
        Conditions with fewer cells on a side are drawn pale.
    measure, space
        What is drawn and in which embedding space, for the axis and the caption.
    section
        Heading of the report under which it stands.
    """
    if not generated:
        raise ValueError("no condition to draw")
    order = sorted(generated, key=lambda condition: generated[condition])
    with styled():
        figure, (axis,) = canvas(7.2, 1.3 + 0.36 * len(order))
        at = np.arange(len(order))
        shades = [0.4 if n and min(n.get(c, (few, few))) < few else 0.9 for c in order]
        bars = axis.barh(at, [generated[c] for c in order], height=0.56, color=ACCENT, label="generated")
        for bar, shade in zip(bars, shades, strict=True):
            bar.set_alpha(shade)
        marks = (("|", INK), ("D", WARM), ("o", "#7a5195"), ("s", MUTED))
        for (name, values), (mark, colour) in zip(references.items(), marks, strict=False):
            style: dict[str, Any] = {"markersize": 15, "markeredgewidth": 2.2} if mark == "|" else {"markersize": 5.5}
            points = [values.get(c, np.nan) for c in order]
            axis.plot(points, at, mark, color=colour, linestyle="none", label=name, zorder=3, **style)
        names = [f"{shortened(c)}  ({n[c][0]} | {n[c][1]})" if n and c in n else shortened(c) for c in order]
        axis.set_yticks(at, names)
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(-0.6, len(order) - 0.4)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"{measure} ({space})")
        axis.grid(axis="x")
        axis.spines["left"].set_visible(False)
        handles, texts = axis.get_legend_handles_labels()
        first = texts.index("generated")
        handles.insert(0, handles.pop(first))
        texts.insert(0, texts.pop(first))
        axis.legend(handles, texts, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
        png = to_png(figure)
    means = {"generated": generated, **references}
    shuffled = next((name for name in references if "shuffled" in name), "shuffled labels")
    averages = "; ".join(f"{k} {np.mean([v[c] for c in order if c in v]):.3g}" for k, v in means.items())
    caption = (
        f"{measure} by condition in {space}; lower is closer. A bar near the mark of “real vs real” means "
        "that generated cells differ from real ones no more than two samples of real cells do; one near "
        f"“{shuffled}”, that the condition was ignored. Means: {averages}."
    )
    if n:
        caption += (
            " In brackets: real | generated cells. Few cells make any such distance larger: pale bars rest "
            f"on fewer than {few}."
        )
    return Figure(f"{measure} by condition", caption, png, section)
