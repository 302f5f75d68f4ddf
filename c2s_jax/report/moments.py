"""Mean and variance of each gene, real against generated."""

import numpy as np
from numpy.typing import ArrayLike

from c2s_jax.report.style import ACCENT, INK, MUTED, Figure, canvas, styled, to_png


def moments_scatter(
    real: ArrayLike, generated: ArrayLike, genes: list[str] | tuple[str, ...], *, named: int = 3
) -> Figure:
    """A point a gene: its mean, and its variance, over real (across) and generated cells (up).

    Parameters
    ----------
    real, generated
        Expression, [C, G] and [K, G].
    genes
        Names of the columns.
    named
        So many of the genes that lie farthest from the diagonal are named.
    """
    sides = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if min(map(len, sides)) < 2 or {x.shape[1] for x in sides} != {len(genes)}:
        shapes = " and ".join(str(x.shape) for x in sides)
        raise ValueError(f"need at least 2 cells of {len(genes)} genes on each side, got shapes {shapes}")
    said = []
    with styled():
        figure, axes = canvas(7.2, 3.5, 2)
        for axis, what in zip(axes, ("mean", "variance"), strict=True):
            x, y = (side.mean(axis=0) if what == "mean" else side.var(axis=0, ddof=1) for side in sides)
            axis.plot(x, y, "o", color=ACCENT, markersize=3, alpha=0.5, markeredgewidth=0)
            end = float(max(x.max(), y.max(), 1e-9)) * 1.05
            axis.plot([0, end], [0, end], "--", color=MUTED, linewidth=1)
            for i in np.argsort(-np.abs(x - y), kind="stable")[:named]:
                axis.annotate(
                    genes[i], (x[i], y[i]), xytext=(3, 3), textcoords="offset points", fontsize=6.5, color=INK
                )
            axis.set(xlim=(0, end), ylim=(0, end), xlabel=f"{what}, real cells", ylabel=f"{what}, generated cells")
            axis.set_aspect("equal")
            axis.locator_params(nbins=5)
            said.append(f"of the {what} {_pearson(x, y):.3f}")
        png = to_png(figure)
    caption = (
        f"A point a gene ({len(genes):,}), log10 expression, {len(sides[0]):,} real and {len(sides[1]):,} generated "
        f"cells. Pearson correlation over genes {' and '.join(said)}. Below the dashed line generated cells have too "
        "little. Expression of a generated cell is read off a line, so its variance comes from which genes are named "
        "and where, not from counting noise: expect it below that of real cells."
    )
    return Figure("Mean and variance of genes, real against generated", caption, png, "Generation")


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """0 where a side is constant."""
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else 0.0
