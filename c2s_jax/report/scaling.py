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

KINDS = {"full": ACCENT, "LoRA": WARM}


@dataclasses.dataclass(frozen=True)
class Rung:
    """A run of a ladder.

    Attributes
    ----------
    name
    kind
        "full" or "LoRA".
    parameters, embedding_parameters
        Of the model, without the tables of embeddings, and of these.
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
    rungs: Sequence[Rung], fits: Mapping[str, Mapping[str, Fitted]], metric: str, held_out: int
) -> Figure:
    """Three panels: L(N) of all tasks with bands, L(D) of each run with L(N, D), and L(N) of each task.

    Parameters
    ----------
    rungs
    fits
        Kind → metric → laws; those of ``metric`` are drawn large, those of ``metric/<task>`` in the last panel.
    held_out
        So many of the largest rungs of each kind were not fitted, and are drawn hollow.
    """
    with styled():
        figure, axes = canvas(11.0, 3.3, 3)
        for kind, found in fits.items():
            chosen = sorted((r for r in rungs if r.kind == kind), key=lambda r: r.parameters)
            _by_size(axes[0], chosen, found[metric], metric, held_out, KINDS[kind], kind)
            _by_tokens(axes[1], chosen, found[metric], metric)
            _by_task(axes[2], chosen, found, metric, held_out)
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
        "and tokens."
    )
    return Figure("Scaling laws", caption, png, "Scaling")


def _by_size(
    ax: Axes, rungs: Sequence[Rung], found: Fitted, metric: str, held_out: int, colour: str, kind: str
) -> None:
    sizes = np.array([r.parameters for r in rungs])
    losses = np.array([r.losses[metric][-1] for r in rungs])
    at = np.geomspace(sizes[0] / 1.3, sizes[-1] * 2.5, 200)
    low, high = band(found.laws, at)
    ax.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    (exponent,), offset = found.law.exponents, found.law.offset
    ax.plot(at, found.law(at), color=colour, linewidth=1.2, label=f"{kind}: {offset:.2f} + a·N^−{exponent:.2f}")
    fitted = len(rungs) - held_out
    ax.plot(sizes[:fitted], losses[:fitted], "o", color=colour, markersize=5)
    ax.plot(sizes[fitted:], losses[fitted:], "o", markeredgecolor=colour, markerfacecolor="white", markersize=6)


def _by_tokens(ax: Axes, rungs: Sequence[Rung], found: Fitted, metric: str) -> None:
    for rung, colour in zip(rungs, label_colours([r.name for r in rungs]).values()):
        ax.plot(rung.tokens, rung.losses[metric], "o", color=colour, markersize=3, label=f"{rung.parameters:,}")
        at = np.geomspace(rung.tokens[0], rung.tokens[-1], 100)
        ax.plot(at, found.joint(rung.parameters, at), color=colour, linewidth=1)


def _by_task(ax: Axes, rungs: Sequence[Rung], fits: Mapping[str, Fitted], metric: str, held_out: int) -> None:
    tasks = [name for name in fits if name != metric]
    sizes = np.array([r.parameters for r in rungs])
    at = np.geomspace(sizes[0] / 1.3, sizes[-1] * 2.5, 100)
    fitted = len(rungs) - held_out
    for task, colour in label_colours(tasks).items():
        losses = [r.losses[task][-1] for r in rungs]
        ax.plot(at, fits[task].law(at), color=colour, linewidth=1)
        ax.plot(sizes[:fitted], losses[:fitted], "o", color=colour, markersize=4, label=task.rsplit("/", 1)[-1])
        ax.plot(sizes[fitted:], losses[fitted:], "o", markeredgecolor=colour, markerfacecolor="white", markersize=5)
    if not tasks:
        ax.text(0.5, 0.5, "one task", transform=ax.transAxes, color=MUTED, ha="center")
