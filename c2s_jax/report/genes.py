"""Marker genes of real cells, and whether generated cells express them alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from c2s_jax.report.style import MUTED, Figure, canvas, checked_order, same_length, shortened, styled, to_png


def marker_genes(
    expression: Any, labels: ArrayLike, gene_names: Sequence[str], *, per_label: int = 2, min_cells: int = 3
) -> list[str]:
    """Genes that tell each label from the rest, in the labels' alphabetical order, each gene once.

    Score of a gene for a label: difference of mean log expression times difference of the fraction of cells
    that express it, against the mean over the other labels. Choose them on training cells.

    Parameters
    ----------
    expression
        Log expression [C, G], dense or sparse.
    labels
        [C]; labels with fewer than `min_cells` cells are left out.
    """
    mean, fraction, _, counts = _label_profiles(expression, labels)
    kept = np.flatnonzero(counts >= min_cells)
    if mean.shape[1] != len(gene_names):
        raise ValueError(f"expression has {mean.shape[1]} genes and gene_names {len(gene_names)} names")
    chosen: list[int] = []
    for i in kept:
        rest = kept[kept != i]
        lift = mean[i] - (mean[rest].mean(axis=0) if len(rest) else 0)
        spread = fraction[i] - (fraction[rest].mean(axis=0) if len(rest) else 0)
        ranked = np.argsort(-(np.maximum(lift, 0) * np.maximum(spread, 0)), kind="stable")
        chosen += [int(g) for g in ranked[: per_label + len(chosen)] if g not in chosen][:per_label]
    return [gene_names[g] for g in chosen]


def gene_dotplot(
    real: Any,
    real_labels: ArrayLike,
    generated: Any,
    generated_labels: ArrayLike,
    gene_names: Sequence[str],
    genes: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Mean expression (colour) and share of expressing cells (size) of `genes`, real beside generated.

    Parameters
    ----------
    real, generated
        Log expression [C, G] and [M, G], dense or sparse, columns in the order of `gene_names`.
    real_labels, generated_labels
        Cell types [C] and [M].
    genes
        Genes to show, for example from `marker_genes`.
    """
    index = {name: i for i, name in enumerate(gene_names)}
    unknown = [gene for gene in genes if gene not in index]
    if unknown or not len(genes):
        raise ValueError(f"genes not in gene_names: {unknown}" if unknown else "no gene to show")
    columns = [index[gene] for gene in genes]
    sides = [_label_profiles(x, y) for x, y in ((real, real_labels), (generated, generated_labels))]
    order = checked_order(sorted({x for side in sides for x in side[2]}), labels)
    top = max(float(side[0][:, columns].max()) for side in sides)
    with styled():
        figure, axes = canvas(1.9 + 0.46 * len(genes), 2.1 + 0.25 * len(order), 2, sharey=True)
        totals = (int(sides[0][3].sum()), int(sides[1][3].sum()))
        for axis, side, name, n in zip(axes, sides, ("Real", "Generated"), totals, strict=True):
            dots = _dots(axis, side, order, columns, top)
            axis.set_title(f"{name} (n = {n:,})")
            axis.set_xticks(range(len(genes)), list(genes), rotation=90, fontsize=7)
        axes[0].set_yticks(range(len(order)), [shortened(x) for x in order])
        axes[0].invert_yaxis()
        bar = figure.colorbar(dots, ax=axes, shrink=0.55, aspect=14, pad=0.02, anchor=(0, 0.95))
        bar.outline.set_visible(False)
        bar.set_label("mean log$_{10}$ expression", fontsize=8)
        handles = [
            axes[1].scatter([], [], s=_area(f), color=MUTED, linewidths=0, label=f"{f:.0%}") for f in (0.2, 0.5, 1.0)
        ]
        figure.legend(handles=handles, loc="outside lower right", ncols=3, title="cells expressing", title_fontsize=8)
        png = to_png(figure)
    caption = (
        f"n = {totals[0]:,} real held-out and {totals[1]:,} generated cells. A dot is a gene in a cell type: "
        "its size is the share of cells that express the gene, its colour the mean expression. The right "
        "panel should look like the left: markers must light up in the type that was asked for, and nowhere "
        "else."
    )
    return Figure("Marker genes, real and generated", caption, png, "Generation")


def _dots(axis: Any, side: Any, order: list[str], columns: list[int], top: float) -> Any:
    mean, fraction, names, _ = side
    rows = [order.index(name) for name in names]
    x, y = np.meshgrid(np.arange(len(columns)), rows)
    dots = axis.scatter(
        x,
        y,
        s=_area(fraction[:, columns]),
        c=mean[:, columns],
        cmap="Reds",
        vmin=0,
        vmax=top,
        linewidths=0.3,
        edgecolors="#8a8f94",
    )
    axis.set_xlim(-0.7, len(columns) - 0.3)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.grid()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return dots


def _area(fraction: Any) -> Any:
    return 85 * np.asarray(fraction)


def _label_profiles(expression: Any, labels: ArrayLike) -> tuple[Any, Any, list[str], Any]:
    """Mean [L, G], fraction above 0 [L, G], label names and counts [L]."""
    matrix = sparse.csr_matrix(expression)
    names = np.asarray(labels).astype(str)
    same_length(expression=range(matrix.shape[0]), labels=names)
    if not len(names):
        raise ValueError("no cell to profile")
    order, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    membership = sparse.csr_matrix((1 / counts[codes], (codes, np.arange(len(names)))), (len(order), len(names)))
    expressed = matrix.copy()
    expressed.data = (expressed.data > 0).astype(np.float64)
    return (membership @ matrix).toarray(), (membership @ expressed).toarray(), order.tolist(), counts
