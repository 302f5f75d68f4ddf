"""Learning curves from a run's metrics."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from numpy.typing import ArrayLike

from c2s_jax.report.style import ACCENT, MUTED, WARM, Figure, canvas, label_colours, styled, to_png

Series = Mapping[str, tuple[ArrayLike, ArrayLike]]


def read_metrics(path: str | Path) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Read a run's ``metrics.jsonl`` into name → (steps, values), steps rising.

    A line is ``{"step": 1, "train/loss": 7.1, ...}``. Where a step was written twice (a run resumed from an
    earlier checkpoint) the later line holds.
    """
    series: dict[str, dict[int, float]] = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            step = int(record.pop("step"))
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not a JSON object with a 'step' ({error})") from error
        for name, value in record.items():
            if isinstance(value, int | float):
                series.setdefault(name, {})[step] = float(value)
    return {
        name: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in series.items()
    }


def learning_curves(series: Series, *, tasks: Sequence[str] | None = None) -> Figure:
    """Loss (all tasks, then each task) and learning rate against the optimizer step.

    Parameters
    ----------
    series
        name → (steps, values) as `read_metrics` gives, with ``train/loss`` and, where there,
        ``validation/loss``, ``train/loss/<task>``, ``validation/loss/<task>``, ``train/learning_rate`` and
        ``train/tokens_per_second``.
    tasks
        Tasks to show and their order; by default all found.
    """
    if "train/loss" not in series:
        raise ValueError(f"learning curves need 'train/loss'; the metrics hold {sorted(series)}")
    found = sorted({name.split("/loss/")[1] for name in series if "/loss/" in name})
    tasks = found if tasks is None else list(tasks)
    panels = ["all", *(["tasks"] if tasks else []), *(["rate"] if "train/learning_rate" in series else [])]
    with styled():
        figure, axes = canvas(3.4 * len(panels), 2.9, len(panels))
        for axis, panel in zip(axes, panels, strict=True):
            axis.grid(axis="y")
            axis.set_xlabel("optimizer step")
            {"all": _draw_all, "tasks": _draw_tasks, "rate": _draw_rate}[panel](axis, series, tasks)
        png = to_png(figure)
    return Figure("Learning curves", _caption(series), png, "Training")


def _draw_all(axis: Axes, series: Series, tasks: Sequence[str]) -> None:
    steps, values = map(np.asarray, series["train/loss"])
    axis.plot(steps, values, color=ACCENT, alpha=0.25, linewidth=0.8)
    axis.plot(steps, _smooth(values), color=ACCENT, linewidth=1.6, label="training (smoothed)")
    if "validation/loss" in series:
        axis.plot(*series["validation/loss"], "o-", color=WARM, markersize=3.5, linewidth=1.2, label="validation")
    axis.set(title="Loss, all tasks", ylabel="nats per token", ylim=(0.0, 1.05 * _highest(values)))
    axis.legend()


def _draw_tasks(axis: Axes, series: Series, tasks: Sequence[str]) -> None:
    shown = []
    for task, colour in label_colours(tasks).items():
        name = task.replace("_", " ")
        if f"train/loss/{task}" in series:
            steps, values = series[f"train/loss/{task}"]
            shown.append(np.asarray(values))
            axis.plot(steps, _smooth(np.asarray(values)), color=colour, linewidth=1.5, label=name)
            name = ""
        if f"validation/loss/{task}" in series:
            steps, values = series[f"validation/loss/{task}"]
            shown.append(np.asarray(values))
            axis.plot(steps, values, "o", color=colour, markersize=3.5, markerfacecolor="white", label=name or None)
    # Losses of tasks differ by orders of magnitude: a label is a token or two, a sentence is hundreds.
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set(title="Loss by task", ylabel="nats per token (log scale)")
    if shown:
        axis.set_ylim(top=3.2 * max(map(_highest, shown)))
    axis.legend(loc="upper right")


def _draw_rate(axis: Axes, series: Series, tasks: Sequence[str]) -> None:
    axis.plot(*series["train/learning_rate"], color=MUTED, linewidth=1.4)
    axis.set(title="Learning rate", ylabel="learning rate")
    axis.yaxis.set_major_formatter("{x:.3g}")
    axis.set_ylim(bottom=0)


def _smooth(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Centred running mean over about 1/40 of the run, narrower at the ends so that it has no lag.

    Values that are not finite are left out; NaN where there are no others.
    """
    half = max(1, len(values) // 80)
    there = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(there, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(there)])
    at = np.arange(len(values))
    reach = np.minimum(half, np.minimum(at, len(values) - 1 - at))
    first, end = at - reach, at + reach + 1
    n = count[end] - count[first]
    return np.where(n > 0, total[end] - total[first], np.nan) / np.maximum(n, 1)


def _highest(values: np.ndarray[Any, Any]) -> float:
    """Of those that are finite; 1 where none is."""
    return float(np.max(values, where=np.isfinite(values), initial=0.0)) or 1.0


def _caption(series: Series) -> str:
    steps = np.asarray(series["train/loss"][0])
    text = (
        f"{int(steps.max()):,} optimizer steps. Lower is better; the loss is the average surprise at the "
        "next token, in nats. "
    )
    if any(name.startswith("validation/loss") for name in series):
        text += (
            "Circles are validation cells, which no training step has seen: training falling while they rise "
            "means that the model memorises its cells. "
        )
    if "train/tokens_per_second" in series:
        speed = float(np.median(np.asarray(series["train/tokens_per_second"][1])))
        text += f"Median speed {speed:,.0f} tokens per second."
    return text.strip()
