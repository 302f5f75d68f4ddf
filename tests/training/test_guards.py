"""No bad update reaches the parameters, and the run does what it was told about it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from c2s_jax.training.guards import Guards, check_guards, guard_counts, guarded

SETTINGS = dict(nonfinite="skip", spike="off", spike_factor=2.0, window=4, max_rewinds=1)
LOSSES = [4.0, 3.0, 3.5, 3.0, 2.8, 2.9]


def run(losses: list[float], gradients: list[float], factor: float = 2.0, window: int = 4) -> tuple[Any, Any]:
    """Parameter and state after the updates, through a jitted step."""
    optimizer = guarded(optax.adam(0.1), spike_factor=factor, window=window)
    params = {"w": jnp.array([1.0, -2.0])}

    @jax.jit
    def step(params: Any, state: Any, loss: jax.Array, gradient: jax.Array) -> Any:
        updates, state = optimizer.update({"w": params["w"] * gradient}, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for loss, gradient in zip(losses, gradients):
        params, state = step(params, state, jnp.float32(loss), jnp.float32(gradient))
    return params, state


def same(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("loss", "gradient", "kind"),
    [
        (np.nan, 1.0, "nonfinite"),
        (np.inf, 1.0, "nonfinite"),
        (3.0, np.nan, "nonfinite"),
        (3.0, -np.inf, "nonfinite"),
        (6.3, 1.0, "spikes"),  # above twice the median of 3.0, 3.5, 3.0, 2.8
    ],
)
def test_a_bad_update_leaves_no_trace(loss: float, gradient: float, kind: str) -> None:
    """Parameters, moments, counters and the running median are those of a run without that step."""
    gradients = [1.0, 0.5, 2.0, 1.0, 1.5, 1.0]
    params, state = run(LOSSES, gradients)
    with_bad, bad_state = run([*LOSSES[:5], loss, LOSSES[5]], [*gradients[:5], gradient, gradients[5]])
    same(with_bad, params)
    same(bad_state.inner, state.inner)
    same(bad_state.losses, state.losses)
    counts = {name: int(n) for name, n in guard_counts(bad_state).items()}
    assert counts == {"nonfinite": 0, "spikes": 0, "in_a_row": 0} | {kind: 1}
    assert not any(int(n) for n in guard_counts(state).values())


def test_no_spike_before_the_window_is_full_or_when_off() -> None:
    assert int(run([1.0, 1.0, 1.0, 9.0], [1.0] * 4)[1].spikes) == 0
    assert int(run([1.0, 1.0, 1.0, 1.0, 9.0], [1.0] * 5)[1].spikes) == 1
    assert int(run([1.0, 1.0, 1.0, 1.0, 9.0], [1.0] * 5, factor=np.inf)[1].spikes) == 0


def test_refusals_in_a_row_are_counted() -> None:
    _, state = run([*LOSSES, np.nan, np.nan], [1.0] * 8)
    assert (int(state.nonfinite), int(state.in_a_row)) == (2, 2)


NONE = {"nonfinite": 0, "spikes": 0, "in_a_row": 0}


def judge(metrics: dict[str, int], **settings: Any) -> list[str]:
    """Verdicts on the same refusals, three times over."""
    guards = Guards(SETTINGS | settings, NONE)
    times = [{name: n * time for name, n in metrics.items()} for time in (1, 2, 3)]
    return [guards.judge(7, t) for t in times]


@pytest.mark.parametrize(
    ("metrics", "settings", "verdicts"),
    [
        (NONE, {"nonfinite": "stop"}, ["go", "go", "go"]),
        ({**NONE, "nonfinite": 1}, {}, ["go", "go", "go"]),
        ({**NONE, "nonfinite": 1}, {"nonfinite": "stop"}, ["stop", "stop", "stop"]),
        ({**NONE, "nonfinite": 1}, {"nonfinite": "rewind", "max_rewinds": 2}, ["rewind", "rewind", "stop"]),
        ({**NONE, "spikes": 1}, {"spike": "rewind", "nonfinite": "stop"}, ["rewind", "stop", "stop"]),
        ({**NONE, "spikes": 1, "nonfinite": 1}, {"spike": "rewind", "nonfinite": "stop"}, ["stop"] * 3),
        ({**NONE, "in_a_row": 7, "nonfinite": 7}, {}, ["go", "go", "stop"]),
    ],
)
def test_verdicts(metrics: dict[str, int], settings: dict[str, Any], verdicts: list[str]) -> None:
    assert judge(metrics, **settings) == verdicts


def test_the_reason_says_where_and_what_to_do() -> None:
    guards = Guards(SETTINGS | {"nonfinite": "stop"}, NONE)
    guards.judge(1234, {**NONE, "nonfinite": 3})
    assert "Step 1,234" in guards.reason
    assert "3 updates were refused as not finite" in guards.reason
    assert "guards.nonfinite" in guards.reason
    assert guards.scalars == {"guards/nonfinite": 3, "guards/spikes": 0, "guards/in_a_row": 0, "guards/rewinds": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonfinite": "off"}, "guards.nonfinite='off' is not one of skip, rewind, stop"),
        ({"spike": "halt"}, "guards.spike='halt' is not one of off, skip, rewind, stop"),
        ({"spike_factor": 1.0}, "guards.spike_factor=1.0 must be above 1"),
        ({"window": 1}, "guards.window=1 must be at least 2"),
        ({"max_rewinds": -1}, "guards.max_rewinds=-1 must not be negative"),
    ],
)
def test_nonsense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_guards(SETTINGS | change)
