"""Guards against updates that would spoil a model: gradients that are not finite, losses that leap."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

ACTIONS = ("skip", "rewind", "stop")
MAX_IN_A_ROW = 20  # refused updates after which a run stops whatever it was told


class Stopped(Exception):
    """A guard ended the run."""


class GuardState(NamedTuple):
    """The optimizer's own state, the losses of the last accepted updates (NaN where there are none yet, float32
    [window]), and how many updates were refused (int32 []): for what reason, and in a row until now."""

    inner: optax.OptState
    losses: jax.Array
    nonfinite: jax.Array
    spikes: jax.Array
    in_a_row: jax.Array


def guarded(
    optimizer: optax.GradientTransformation, *, spike_factor: float, window: int
) -> optax.GradientTransformationExtraArgs:
    """Refuse updates whose loss or gradient is not finite, or whose loss is above a multiple of the running median.

    Losses come as ``value``; without, only gradients are looked at. A refused update changes neither parameters nor the
    optimizer's state; that is decided on the device.

    Parameters
    ----------
    spike_factor
        A loss above so many times the median of the last ``window`` accepted ones is a spike; inf: none is.
    window
        Until so many updates were accepted, no loss is a spike.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> GuardState:
        none = jnp.zeros((), jnp.int32)
        return GuardState(inner.init(params), jnp.full((window,), jnp.nan, jnp.float32), none, none, none)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, *, value: Any = None, **extra: Any
    ) -> tuple[optax.Updates, GuardState]:
        loss = jnp.zeros(()) if value is None else value
        finite = jnp.isfinite(optax.tree.norm(updates)) & jnp.isfinite(loss)
        spike = finite & (loss > spike_factor * jnp.median(state.losses))  # compares false with NaN
        accepted = finite & ~spike
        changes, changed = inner.update(updates, state.inner, params, value=value, **extra)
        changes = jax.tree.map(lambda u: jnp.where(accepted, u, jnp.zeros_like(u)), changes)
        kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), changed, state.inner)
        losses = jnp.where(accepted, jnp.append(state.losses[1:], loss), state.losses)
        return changes, GuardState(
            kept,
            losses,
            state.nonfinite + ~finite,
            state.spikes + spike,
            jnp.where(accepted, 0, state.in_a_row + 1),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def guard_counts(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """Refused updates since the run began, as metrics of a step; nothing of an optimizer without guard."""
    if not isinstance(opt_state, GuardState):
        return {}
    return {"nonfinite": opt_state.nonfinite, "spikes": opt_state.spikes, "in_a_row": opt_state.in_a_row}


class Guards:
    """What to do about refused updates, decided on the host whenever a step's metrics are read.

    Parameters
    ----------
    settings
        ``config.guards``.
    counts
        ``guard_counts`` of the state that the run starts from.

    Attributes
    ----------
    reason
        Of the last judgement.
    scalars
        Counts of refused updates and rewinds, for the metrics.
    """

    def __init__(self, settings: Mapping[str, Any], counts: Mapping[str, Any]):
        self._actions = {"nonfinite": settings["nonfinite"], "spikes": settings["spike"]}
        self._max_rewinds, self._rewinds = settings["max_rewinds"], 0
        self.reason, self.scalars = "", dict[str, float]()
        self.restart(counts)

    def judge(self, step: int, metrics: Mapping[str, Any]) -> Literal["go", "rewind", "stop"]:
        """What to do after ``step``, by its metrics; ``reason`` then says why."""
        counts = {name: int(metrics[name]) for name in ("nonfinite", "spikes", "in_a_row")}
        self.scalars = {f"guards/{name}": float(n) for name, n in counts.items()}
        self.scalars["guards/rewinds"] = self._rewinds
        new = {name: counts[name] - self._seen[name] for name in self._actions}
        self.restart(counts)
        self.reason = (
            f"Step {step:,}: since the last look, {new['nonfinite']} updates were refused as not finite and "
            f"{new['spikes']} for a leap of the loss; no parameter was touched by them."
        )
        wanted = {self._actions[name] for name, n in new.items() if n > 0}
        if counts["in_a_row"] >= MAX_IN_A_ROW:
            self.reason += f" {counts['in_a_row']} in a row: lower optimizer.learning_rate, or look at the data here."
            return "stop"
        if "stop" in wanted:
            self.reason += (
                " To go on, run again with guards.nonfinite (or guards.spike) set to skip or, unless objective=grpo, "
                "to rewind."
            )
            return "stop"
        if "rewind" not in wanted:
            return "go"
        if self._rewinds == self._max_rewinds:
            self.reason += f" guards.max_rewinds={self._max_rewinds} are used up."
            return "stop"
        self._rewinds += 1
        return "rewind"

    def restart(self, counts: Mapping[str, Any]) -> None:
        """Count from a restored state on."""
        self._seen = {name: int(counts[name]) for name in self._actions}


def check_guards(settings: Mapping[str, Any]) -> None:
    """Refuse settings of ``config.guards`` that mean nothing."""
    if settings["nonfinite"] not in ACTIONS:
        raise ValueError(f"guards.nonfinite={settings['nonfinite']!r} is not one of {', '.join(ACTIONS)}")
    if settings["spike"] not in ("off", *ACTIONS):
        raise ValueError(f"guards.spike={settings['spike']!r} is not one of off, {', '.join(ACTIONS)}")
    if not 1 < settings["spike_factor"] < math.inf:
        raise ValueError(f"guards.spike_factor={settings['spike_factor']} must be above 1")
    if settings["window"] < 2:
        raise ValueError(f"guards.window={settings['window']} must be at least 2")
    if settings["max_rewinds"] < 0:
        raise ValueError(f"guards.max_rewinds={settings['max_rewinds']} must not be negative")
