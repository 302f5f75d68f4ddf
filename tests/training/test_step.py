"""The jitted training step: what it minimises, how it averages, what the optimizer does to which parameter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from c2s_jax.models import Gemma2Config
from c2s_jax.parallel import make_mesh
from c2s_jax.training import TrainState, create_state, make_eval_step, make_optimizer, make_schedule, make_train_step
from c2s_jax.training.optimizer import decay_mask
from tests.toy import MODEL, N_TASKS, make_batch, named, run_config

ONE = {"fsdp": 1}


def start(
    optimizer: optax.GradientTransformation, config: Gemma2Config = MODEL, *, ema: bool = False
) -> tuple[nnx.GraphDef, TrainState, TrainState, jax.sharding.Mesh]:
    mesh = make_mesh(ONE, jax.devices()[:1])
    return *create_state(config, optimizer, mesh, 0, ema=ema), mesh


def mean_loss(graphdef: nnx.GraphDef, params: nnx.State, batch: dict) -> jax.Array:
    """The loss, written out from whole logits, each example in a row of its own (what follows it has no weight)."""
    rows, time = batch["tokens"].shape
    tokens, targets = np.zeros((2, 2 * rows, time), np.int32)
    weights = np.zeros((2 * rows, time), np.float32)
    for example in range(2 * rows):
        row, segment = divmod(example, 2)
        at = np.flatnonzero(batch["segment_ids"][row] == segment + 1)
        tokens[example, : len(at)] = batch["tokens"][row, at]
        targets[example, : len(at)] = batch["targets"][row, at]
        weights[example, : len(at)] = batch["loss_weights"][row, at]
    log_p = jax.nn.log_softmax(nnx.merge(graphdef, params)(tokens))
    return -jnp.sum(jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0] * weights) / weights.sum()


def test_loss_and_gradient_are_those_of_single_examples() -> None:
    """A packed batch gives the loss and the gradient of its examples, one at a time and unpacked."""
    graphdef, state, shardings, mesh = start(optax.sgd(1.0))
    batch = make_batch(rows=2)
    loss, gradient = jax.jit(jax.value_and_grad(lambda p: mean_loss(graphdef, p, batch)))(state.params)
    wanted = named(jax.tree.map(lambda p, g: p - g, state.params, gradient))
    step = make_train_step(graphdef, optax.sgd(1.0), mesh, shardings, n_tasks=N_TASKS)
    state, metrics = step(state, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradient), rtol=1e-4)
    for name, found in named(state.params).items():
        np.testing.assert_allclose(found, wanted[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulation_equals_the_whole_batch(accumulate: int) -> None:
    """Rows weigh from 0.1 to 10, so that a mean of micro-batch means would be far off."""
    graphdef, state, shardings, mesh = start(optax.sgd(1.0))
    batch = make_batch()
    results = []
    for n in (1, accumulate):
        step = make_train_step(graphdef, optax.sgd(1.0), mesh, shardings, n_tasks=N_TASKS, accumulate=n)
        results.append(step(jax.tree.map(jnp.copy, state), batch))
    (whole, whole_metrics), (cut, cut_metrics) = results
    for name, value in whole_metrics.items():
        np.testing.assert_allclose(cut_metrics[name], value, rtol=1e-5, err_msg=name)
    before, wanted, found = named(state.params), named(whole.params), named(cut.params)
    for name in wanted:
        moved = np.abs(wanted[name] - before[name]).max()
        assert moved > 1e-4, name
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-4 * moved + 1e-7, err_msg=name)


def test_loss_by_task_and_evaluation() -> None:
    graphdef, state, shardings, mesh = start(optax.sgd(0.0))
    batch = make_batch()
    sums = np.asarray(make_eval_step(graphdef, mesh, n_tasks=N_TASKS)(state.params, batch))
    for task in range(N_TASKS):
        only = batch | {"loss_weights": batch["loss_weights"] * (batch["task_ids"] == task)}
        np.testing.assert_allclose(sums[1, task], only["loss_weights"].sum(), rtol=1e-5)
        wanted = jax.jit(lambda p, only=only: mean_loss(graphdef, p, only))(state.params)
        np.testing.assert_allclose(sums[0, task] / sums[1, task], wanted, rtol=1e-4)
    step = make_train_step(graphdef, optax.sgd(0.0), mesh, shardings, n_tasks=N_TASKS + 1)
    _, metrics = step(state, batch)
    np.testing.assert_allclose(metrics["loss_by_task"], [*(sums[0] / sums[1]), np.nan], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], sums[0].sum() / sums[1].sum(), rtol=1e-5)


def test_a_small_batch_is_learnt_by_heart() -> None:
    config = run_config(weight_decay=0.0)
    optimizer = make_optimizer(config)
    graphdef, state, shardings, mesh = start(optimizer)
    step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS)
    batch, losses = make_batch(rows=2), []
    for _ in range(config.steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[0] > 0.8 * np.log(MODEL.vocab_size)
    assert losses[-1] < 0.1
    assert int(state.step) == config.steps


def test_a_batch_without_weights_changes_nothing_to_nan() -> None:
    optimizer = make_optimizer(run_config())
    graphdef, state, shardings, mesh = start(optimizer)
    step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS)
    batch = make_batch()
    state, metrics = step(state, batch | {"loss_weights": 0 * batch["loss_weights"]})
    assert metrics["loss"] == 0
    assert all(np.isfinite(x).all() for x in named(state.params).values())


def test_dropout_is_keyed_by_seed_and_step() -> None:
    config = dataclasses.replace(MODEL, dropout=0.3)
    graphdef, state, shardings, mesh = start(optax.sgd(0.0), config)
    batch = make_batch()

    def two_losses(seed: int | None) -> list[float]:
        step = make_train_step(graphdef, optax.sgd(0.0), mesh, shardings, n_tasks=N_TASKS, dropout_seed=seed)
        s, first = step(jax.tree.map(jnp.copy, state), batch)
        return [float(first["loss"]), float(step(s, batch)[1]["loss"])]

    a, b, off = two_losses(1), two_losses(2), two_losses(None)
    assert a == two_losses(1)
    assert a[0] != a[1]
    assert a[0] != b[0]
    assert off[0] == off[1] != a[0]


def test_running_mean_of_parameters() -> None:
    """``ema`` starts as the parameters; its decay grows as (1 + step) / (10 + step) up to ``ema_decay``."""
    graphdef, state, shardings, mesh = start(optax.sgd(1.0), ema=True)
    step = make_train_step(graphdef, optax.sgd(1.0), mesh, shardings, n_tasks=N_TASKS, ema_decay=0.15)
    batch, mean = make_batch(), named(state.params)
    for name, value in named(state.ema).items():
        np.testing.assert_array_equal(value, mean[name])
    for decay in (1 / 10, 0.15):  # (1 + 1) / (10 + 1) is above 0.15
        state, _ = step(state, batch)
        now = named(state.params)
        mean = {k: decay * mean[k] + (1 - decay) * now[k] for k in mean}
        for name, value in named(state.ema).items():
            np.testing.assert_allclose(value, mean[name], rtol=0, atol=1e-5, err_msg=name)
    assert state.eval_weights is state.ema
    assert state._replace(ema=None).eval_weights is state.params


# ------------------------------------------------------------------------------------------------- optimizer


def test_decay_skips_norms_alone() -> None:
    """With no gradient, matrices shrink by learning rate × decay, norm scales stay."""
    config = run_config(weight_decay=0.5, warmup_steps=1)
    optimizer = make_optimizer(config)
    _, state, _, _ = start(optimizer)
    params = jax.tree.map(jnp.ones_like, state.params)
    opt_state, zeros = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
    _, opt_state = optimizer.update(zeros, opt_state, params)  # learning rate 0
    updates, _ = optimizer.update(zeros, opt_state, params)
    norms = 0
    for name, update in named(updates).items():
        is_norm = "norm" in name
        norms += is_norm
        np.testing.assert_allclose(update, 0.0 if is_norm else -1e-2 * 0.5, rtol=1e-5, err_msg=name)
    assert norms == 9  # four a layer kind, and the last one
    assert {k for k, v in named(decay_mask(params)).items() if not v} == {k for k in named(params) if "norm" in k}


@pytest.mark.parametrize(
    ("clip_norm", "scale", "clipped"), [(2.0, 100.0, True), (2.0, 0.1, False), (0.0, 100.0, False)]
)
def test_gradients_are_clipped_by_global_norm(clip_norm: float, scale: float, clipped: bool) -> None:
    config = run_config(clip_norm=clip_norm)
    optimizer = make_optimizer(config)
    _, state, _, _ = start(optimizer)
    gradient = jax.tree.map(jnp.ones_like, state.params)
    gradient = jax.tree.map(lambda g: g * scale / optax.tree.norm(gradient), gradient)
    _, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    moments = optax.tree_utils.tree_get(opt_state, "mu")
    wanted = (clip_norm if clipped else scale) * (1 - config.optimizer.b1)
    np.testing.assert_allclose(optax.tree.norm(moments), wanted, rtol=1e-4)


@pytest.mark.parametrize("options", [{"moment_dtype": "bfloat16"}, {"name": "adafactor"}], ids=str)
def test_smaller_optimizer_states_learn_too(options: dict) -> None:
    """As ``test_a_small_batch_is_learnt_by_heart``, with less kept, and the state given back to the next step."""
    config = run_config(weight_decay=0.0, **options)
    optimizer = make_optimizer(config)
    model = dataclasses.replace(MODEL, embed_dim=128, ffw_dim=128, num_layers=2)  # wide enough to be factored
    graphdef, state, shardings, mesh = start(optimizer, model)
    step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS)
    size = sum(x.nbytes for x in jax.tree.leaves(state.opt_state)) / sum(
        x.nbytes for x in jax.tree.leaves(state.params)
    )
    assert size == pytest.approx(1.0, abs=1e-3) if "moment_dtype" in options else size < 0.6
    batch, losses = make_batch(rows=2), []
    for _ in range(40):
        before = state
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert all(x.is_deleted() for x in jax.tree.leaves((before.params, before.opt_state)))
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_moments_in_bfloat16_follow_adam() -> None:
    """Against optax, one parameter, over gradients of changing size: to the 8 bits that are kept."""
    full, kept = (make_optimizer(run_config(moment_dtype=d, warmup_steps=1)) for d in ("float32", "bfloat16"))
    params = nnx.State({"w": nnx.Param(jnp.ones((64,)), axes=("norm",))})
    states = [full.init(params), kept.init(params)]
    for i in range(20):
        gradient = jax.tree.map(lambda x, i=i: 1e-2 * jax.random.normal(jax.random.key(i), x.shape), params)
        (a, states[0]), (b, states[1]) = (o.update(gradient, s, params) for o, s in zip((full, kept), states))
    a, b = (np.asarray(x["w"][...]) for x in (a, b))
    np.testing.assert_allclose(b, a, rtol=0, atol=0.03 * np.abs(a).max())
    assert np.abs(b - a).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sgd"}, "optimizer.name='sgd' is not one of adamw, adafactor"),
        ({"moment_dtype": "int8"}, "moment_dtype='int8' is not one of float32, bfloat16"),
        ({"moment_dtype": "bfloat16", "b2": 0.999}, "optimizer.b2=0.999 changes a moment by less"),
    ],
)
def test_optimizers_that_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(run_config(**options))


def test_schedule() -> None:
    config = run_config(final_fraction=0.1)
    schedule = make_schedule(config)
    values = np.array([schedule(s) for s in (0, 5, 10, 55, 100, 150)])
    np.testing.assert_allclose(values, [0.0, 0.005, 0.01, 0.0055, 0.001, 0.001], rtol=1e-5, atol=1e-9)
    with pytest.raises(ValueError, match="warmup_steps=100 must be below steps=100"):
        make_schedule(run_config(warmup_steps=100))
