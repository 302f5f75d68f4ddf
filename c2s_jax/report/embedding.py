"""Maps of real and generated cells in one plane."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from c2s_jax.report.style import (
    PALE,
    Figure,
    canvas,
    checked_order,
    label_colours,
    same_length,
    shortened,
    styled,
    to_png,
)

_FEWEST_FOR_UMAP = 30


def fit_map(
    real: ArrayLike, generated: ArrayLike, method: str = "umap", *, seed: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    """Lay out real and generated cells in one plane.

    UMAP (McInnes et al. 2018) with a fixed seed, fitted on both together: cells unlike any real one form
    islands of their own, while placing them into a finished layout would hide that and push them to the
    islands' rims. Or PCA, fitted on the real cells alone; PCA also where fewer than 30 real cells make a
    neighbour graph meaningless.

    Parameters
    ----------
    real, generated
        Embeddings [n, d] and [m, d].

    Returns
    -------
    real_xy [n, 2], generated_xy [m, 2], and the method used ("UMAP" or "PCA").
    """
    if method not in ("umap", "pca"):
        raise ValueError(f"method must be 'umap' or 'pca', got {method!r}")
    left, right = np.asarray(real, np.float32), np.asarray(generated, np.float32)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1] or len(left) < 3:
        raise ValueError(f"a map needs [n, d] and [m, d] with n at least 3, got {left.shape} and {right.shape}")
    if method == "umap" and len(left) >= _FEWEST_FOR_UMAP:
        return *_umap(left, right, seed), "UMAP"
    mean = left.mean(axis=0)
    axes = np.linalg.svd(left - mean, full_matrices=False)[2][:2].T
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    return (left - mean) @ axes, (right - mean) @ axes, "PCA"


def _umap(real: Any, generated: Any, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    import umap  # compiles with numba at import: seconds that only this figure should pay

    cells = np.concatenate([real, generated])
    mapper = umap.UMAP(n_neighbors=min(30, len(real) - 1), min_dist=0.5, init="pca", random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plane = np.asarray(mapper.fit_transform(cells))
    return plane[: len(real)], plane[len(real) :]


def embedding_map(
    real_xy: ArrayLike,
    real_labels: ArrayLike,
    generated_xy: ArrayLike,
    generated_labels: ArrayLike,
    *,
    labels: Sequence[str] | None = None,
    method: str = "UMAP",
    space: str = "expression",
) -> Figure:
    """Real cells left, generated cells right over the real ones in grey; same limits, same colours.

    Parameters
    ----------
    real_xy, generated_xy
        [n, 2] and [m, 2], from `fit_map`.
    real_labels, generated_labels
        Cell types; of a generated cell, the type it was asked for.
    labels
        Order of the labels; alphabetical by default.
    method, space
        How the plane was made and from which embedding, for axes and caption.
    """
    left, right = np.asarray(real_xy, float).reshape(-1, 2), np.asarray(generated_xy, float).reshape(-1, 2)
    truth, asked = np.asarray(real_labels).astype(str), np.asarray(generated_labels).astype(str)
    same_length(real_xy=left, real_labels=truth)
    same_length(generated_xy=right, generated_labels=asked)
    order = checked_order(np.union1d(truth, asked).tolist(), labels)
    size = float(np.clip(2600 / max(len(left), 1), 4, 20))
    with styled():
        figure, axes = canvas(9.6, 4.1, 2, sharex=True, sharey=True)
        axes[1].scatter(left[:, 0], left[:, 1], s=size, color=PALE, alpha=0.7, linewidths=0, rasterized=True)
        for axis, points, names in ((axes[0], left, truth), (axes[1], right, asked)):
            _scatter(axis, points, names, label_colours(order), size)
            axis.set_box_aspect(1)
        axes[0].set_title(f"Real cells (n = {len(left):,})")
        axes[1].set_title(f"Generated cells (n = {len(right):,}) over real in grey")
        _legend(figure, order)
        for axis in axes:
            axis.set(xticks=[], yticks=[], xlabel=f"{method} 1")
        axes[0].set_ylabel(f"{method} 2")
        axes[1].spines["left"].set_visible(False)
        png = to_png(figure)
    caption = (
        f"{method} of {space}, {len(left):,} real held-out and {len(right):,} generated cells in one layout"
        f"{'' if method.upper() == 'UMAP' else ' fitted on the real ones'}. Right, a colour is the type the "
        "model was asked for: it should lie on the island of the same colour on the left, and spread as "
        "widely. A tight clump is a lack of variety, colour on another island a wrong type, colour off the "
        "grey a cell unlike any real one."
    )
    if method.upper() == "UMAP":
        caption += " Distances between islands mean little in UMAP."
    return Figure("Real and generated cells", caption, png, "Generation")


def _scatter(axis: Any, points: Any, names: Any, colours: dict[str, Any], size: float) -> None:
    # Common types would bury rare ones: draw in an order shuffled once, by a fixed key.
    order = np.random.Generator(np.random.Philox(key=0)).permutation(len(points))
    shades = [colours[name] for name in names[order]]
    axis.scatter(points[order, 0], points[order, 1], s=size, c=shades, alpha=0.85, linewidths=0, rasterized=True)


def _legend(figure: Any, order: list[str]) -> None:
    from matplotlib.lines import Line2D

    colours = label_colours(order)
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colours[x], markersize=5, label=shortened(x, 30))
        for x in order
    ]
    figure.legend(handles=handles, loc="outside right center", handletextpad=0.2, labelspacing=0.55)
