"""Reliability diagram: stated probability against how often the answer is right."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from c2s_jax.report.style import ACCENT, INK, MUTED, PALE, Figure, canvas, styled, to_png


def reliability_diagram(calibration: Mapping[str, Any], *, section: str = "Annotation") -> Figure:
    """Accuracy by bins of confidence, above the number of answers in each.

    Parameters
    ----------
    calibration
        ``edges`` [B + 1], ``n``, ``confidence``, ``accuracy`` [B], ``ece`` and ``brier``, as
        `c2s_jax.metrics.Calibration.to_json` gives them.
    section
        Heading of the report under which it stands.
    """
    edges, n = np.array(calibration["edges"]), np.array(calibration["n"])
    full = np.flatnonzero(n)
    if not full.size:
        raise ValueError("a reliability diagram needs at least one answer")
    mean, right = (np.array(calibration[key], np.float64)[full] for key in ("confidence", "accuracy"))
    left, width = edges[:-1], np.diff(edges)
    with styled():
        figure, (axis, counts) = canvas(7.2, 3.3, 2, width_ratios=(1.15, 1))
        axis.bar(left[full], right, width[full], align="edge", color=ACCENT, alpha=0.85, edgecolor="white")
        axis.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1, label="calibrated")
        axis.plot(mean, right, "o", color=INK, markersize=4, label="mean confidence of the bin")
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (probability of the answer)", ylabel="share right")
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        counts.bar(left, n, width, align="edge", color=PALE, edgecolor="white")
        for x, w, number in zip(left[full], width[full], n[full]):
            counts.text(x + w / 2, number, f"{number:,}", ha="center", va="bottom", fontsize=7, color=INK)
        counts.set(xlim=(0, 1), xlabel="confidence", ylabel="answers")
        counts.set_ylim(0, n.max() * 1.12)
        png = to_png(figure)
    caption = (
        f"n = {int(n.sum()):,} answers. Bars that reach the dashed line are calibrated: of answers given with "
        "probability p, a share p is right; bars below it are overconfident. Expected calibration error "
        f"{calibration['ece']:.3f} ({len(n)} bins weighted by their answers, top label), Brier score "
        f"{calibration['brier']:.3f}. Bins with few answers say little."
    )
    return Figure("Calibration of annotation", caption, png, section)
