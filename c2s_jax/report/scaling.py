"""The picture of a ladder of sizes: loss against parameters and against tokens, with the fitted laws."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from c2s_jax.metrics.power_law import PowerLaw, band
from c2s_jax.report.style import ACCENT, MUTED, WARM, Figure, canvas, label_colours, styled, to_png

KINDS = {"full": (ACCENT, "o", "-"), "LoRA": (WARM, "s", "--")}  # colour, marker, line


@dataclasses.dataclass(frozen=True)
class Rung:
    """A run of a ladder.

    Attributes
    ----------
    name
    kind
        "full" or "LoRA".
    parameters, embedding_parameters
        Of the model, without the tables of embeddings, and of these; an adapter is not counted.
    trained_parameters
        All of them, or the adapter's.
    tokens
        Seen until each validation, without padding, float [V].
    flops
        That the whole run needed.
    losses
        Metric → loss at each validation, float [V].
    """

    name: str
    kind: str
    parameters: int
    embedding_parameters: int
    trained_parameters: int
    tokens: NDArray
    flops: float
    losses: Mapping[str, NDArray]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        whole = dataclasses.asdict(self)
        return whole | {"tokens": self.tokens.tolist(), "losses": {k: v.tolist() for k, v in self.losses.items()}}


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Laws of one metric: by size after the last step, by size and tokens, each with its bootstrap, and by tokens."""

    law: PowerLaw
    laws: list[PowerLaw]
    joint: PowerLaw
    joint_laws: list[PowerLaw]
    by_tokens: dict[str, PowerLaw]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the spread of the exponents in place of the bootstrap."""
        spread = np.quantile([law.exponents[0] for law in self.laws], [0.05, 0.95]).tolist()
        joint_spread = np.quantile([law.exponents for law in self.joint_laws], [0.05, 0.95], axis=0).T.tolist()
        return {
            "by_size": self.law.to_json() | {"exponents_band_90": [spread]},
            "by_size_and_tokens": self.joint.to_json() | {"exponents_band_90": joint_spread},
            "by_tokens": {name: law.to_json() for name, law in self.by_tokens.items()},
        }


def scaling_figure(
    rungs: Sequence[Rung], fits: Mapping[str, Mapping[str, Fitted]], metric: str, *, held_out: int, after: float
) -> Figure:
    """Three panels: L(N) of all tasks with bands, L(D) of each run with L(N, D), and L(N) of each task.

    Parameters
    ----------
    rungs
    fits
        Kind → metric → laws; those of ``metric`` are drawn large, those of ``metric/<task>`` in the last panel.
    held_out
        So many of the largest rungs of each kind were not fitted, and are drawn hollow.
    after
        Share of a run's tokens before which L(N, D) was not fitted, and is not drawn.
    """
    with styled():
        figure, axes = canvas(11.0, 3.3, 3)
        for number, kind in enumerate(kind for kind in KINDS if kind in fits):
            chosen = sorted((r for r in rungs if r.kind == kind), key=lambda r: r.parameters)
            ladder = _Ladder(kind, chosen, fits[kind], held_out, *KINDS[kind], named=number == 0)
            ladder.by_size(axes[0], metric)
            ladder.by_tokens(axes[1], metric, after)
            ladder.by_task(axes[2], metric)
        axes[0].set(title="Loss and size", xlabel="parameters without embeddings", ylabel="held-out loss, nats a token")
        axes[1].set(title="Loss and tokens", xlabel="tokens seen")
        axes[2].set(title="By task", xlabel="parameters without embeddings")
        for ax in axes:
            ax.set_xscale("log")
            ax.grid(True, axis="y")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_locator(LogLocator(10))
            ax.legend(fontsize=7)
        png = to_png(figure)
    caption = (
        "Left and right: after the last step; lines are laws fitted to the filled points, the band holds 90 % of their "
        "bootstrap, hollow points are runs that were not fitted. Middle: validations on the way, and the law of size "
        "and tokens where it was fitted."
    )
    if len(fits) > 1:
        caption += " Circles and whole lines: all parameters are trained; squares and broken lines: adapters."
    return Figure("Scaling laws", caption, png, "Scaling")


@dataclasses.dataclass(frozen=True)
class _Ladder:
    """Rungs of one kind by size, and how they are drawn; only one kind names sizes and tasks in the legends."""

    kind: str
    rungs: Sequence[Rung]
    fits: Mapping[str, Fitted]
    held_out: int
    colour: str
    marker: str
    line: str
    named: bool

    def by_size(self, ax: Axes, metric: str) -> None:
        found, at = self.fits[metric], self._sizes_between(200)
        low, high = band(found.laws, at)
        ax.fill_between(at, low, high, color=self.colour, alpha=0.15, linewidth=0)
        (exponent,), offset = found.law.exponents, found.law.offset
        label = f"{self.kind}: {offset:.2f} + a·N^−{exponent:.2f}"
        ax.plot(at, found.law(at), self.line, color=self.colour, linewidth=1.2, label=label)
        self._points(ax, metric, self.colour)

    def by_tokens(self, ax: Axes, metric: str, after: float) -> None:
        for rung, colour in zip(self.rungs, label_colours([r.name for r in self.rungs]).values()):
            label = f"{rung.parameters:,}" if self.named else None
            ax.plot(rung.tokens, rung.losses[metric], self.marker, color=colour, markersize=3, label=label)
            at = np.geomspace(max(after * rung.tokens[-1], rung.tokens[0]), rung.tokens[-1], 100)
            ax.plot(at, self.fits[metric].joint(rung.parameters, at), self.line, color=colour, linewidth=1)

    def by_task(self, ax: Axes, metric: str) -> None:
        tasks = [name for name in self.fits if name != metric]
        at = self._sizes_between(100)
        for task, colour in label_colours(tasks).items():
            ax.plot(at, self.fits[task].law(at), self.line, color=colour, linewidth=1)
            self._points(ax, task, colour, task.rsplit("/", 1)[-1] if self.named else None)
        if not tasks:
            ax.text(0.5, 0.5, "one task", transform=ax.transAxes, color=MUTED, ha="center")

    def _sizes_between(self, n: int) -> NDArray:
        return np.geomspace(self.rungs[0].parameters / 1.3, self.rungs[-1].parameters * 2.5, n)

    def _points(self, ax: Axes, metric: str, colour: str, label: str | None = None) -> None:
        """Losses after the last step; hollow where they were not fitted."""
        sizes = np.array([r.parameters for r in self.rungs])
        losses = np.array([r.losses[metric][-1] for r in self.rungs])
        fitted = len(self.rungs) - self.held_out
        ax.plot(sizes[:fitted], losses[:fitted], self.marker, color=colour, markersize=4.5, label=label)
        hollow = sizes[fitted:], losses[fitted:]
        ax.plot(*hollow, self.marker, markeredgecolor=colour, markerfacecolor="white", markersize=5.5)
