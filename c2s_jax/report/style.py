"""One look for all figures: colours, type and the way to PNG."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

INK, MUTED, GRID, ACCENT, WARM, PALE = "#1f2933", "#67737f", "#e3e8ed", "#1f6fb2", "#d1692a", "#c9d1d9"

# Okabe and Ito's colours for the colour-blind, darkened to read on white, then further distinct ones.
_COLOURS = (
    "#0072b2 #d55e00 #009e73 #cc79a7 #e0a100 #56b4e9 #7a5195 #8c564b #6b8e23 #c1121f "
    "#1b1f24 #2a9d8f #9d4edd #ef476f #a3a380 #457b9d #bc6c25 #3a5a40 #ff9f80 #90a4ae"
).split()

DPI = 170

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Source Sans 3", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Figure:
    """A picture of the report: title, a caption that says how to read it and what n is, and its PNG bytes."""

    title: str
    caption: str
    png: bytes
    section: str = "Figures"

    @property
    def inches(self) -> float:
        """Width at which the text has its nominal size (PNG: width is bytes 16 to 19 of the header)."""
        return int.from_bytes(self.png[16:20], "big") / DPI


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the report's style, leaving the user's matplotlib settings alone."""
    with matplotlib.rc_context(_STYLE):
        # A font the machine lacks is normal: the next in the list is taken without a warning a glyph.
        matplotlib.set_loglevel("error")
        yield


def canvas(width: float, height: float, columns: int = 1, **kwargs: Any) -> tuple[Canvas, list[Axes]]:
    """Return a figure of width × height inches and its axes, side by side; no global figure is kept."""
    figure = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False, **kwargs)
    return figure, list(axes.ravel())


def to_png(figure: Canvas, dpi: int = DPI) -> bytes:
    """Render to PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=dpi,
        facecolor="white",
        bbox_inches="tight",
        pad_inches=0.04,
        pil_kwargs={"optimize": True},
    )
    return buffer.getvalue()


def label_colours(labels: Sequence[str]) -> dict[str, Any]:
    """One colour for each label, the same whatever the order and number of cells."""
    if len(labels) <= len(_COLOURS):
        return dict(zip(labels, _COLOURS, strict=False))
    shades = matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, len(labels)))
    return {label: tuple(shade) for label, shade in zip(labels, shades, strict=True)}


def shortened(text: str, width: int = 28) -> str:
    """`text` cut to `width` characters for an axis."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def same_length(**arrays: Any) -> None:
    """Raise when the named arrays differ in length."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"these must be of one length, one entry a cell: {lengths}")


def checked_order(met: Sequence[str], labels: Sequence[str] | None) -> list[str]:
    """Labels in the order asked for (all must be listed), alphabetical by default."""
    if labels is None:
        return sorted(met)
    missing = sorted(set(met) - set(labels))
    if missing:
        raise ValueError(f"labels lacks {missing}, which occur among the cells")
    return list(labels)
