"""Training an adapter: the base takes no part, in gradients, optimizer, checkpoints or memory."""

import dataclasses
import gc
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh
from numpy.typing import NDArray

from c2s_jax.models import GPTNeoXConfig, lora, make_model
from c2s_jax.models.lora import LoRAConfig
from c2s_jax.parallel import batch_sharding, make_mesh, parameter_shardings
from c2s_jax.training import (
    Checkpoints,
    StatePlan,
    TrainState,
    create_state,
    make_eval_step,
    make_optimizer,
    make_train_step,
)
from tests.models.adapters import randomize
from tests.toy import MODEL, N_TASKS, make_batch, named, run_config

ADAPTER = LoRAConfig(rank=2, alpha=4.0)
GPT_NEOX = GPTNeoXConfig(vocab_size=64, embed_dim=16, ffw_dim=32, num_layers=3, num_heads=2)
ONE = {"fsdp": 1}


class Run(NamedTuple):
    graphdef: nnx.GraphDef
    state: TrainState
    shardings: TrainState
    mesh: Mesh
    optimizer: optax.GradientTransformation

    def step(self, **options: Any) -> Any:
        return make_train_step(self.graphdef, self.optimizer, self.mesh, self.shardings, n_tasks=N_TASKS, **options)

    def loss_sums(self, weights: nnx.State, batch: Any) -> NDArray:
        return np.asarray(make_eval_step(self.graphdef, self.mesh, n_tasks=N_TASKS)(weights, batch))


def start(
    config: Any = MODEL,
    optimizer: optax.GradientTransformation | None = None,
    *,
    shape: dict[str, int] = ONE,
    seed: int = 0,
    adapter: LoRAConfig | None = ADAPTER,
    **options: Any,
) -> Run:
    optimizer = optimizer or make_optimizer(run_config(warmup_steps=1))
    mesh = make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])
    return Run(*create_state(config, optimizer, mesh, seed, adapter=adapter, **options), mesh, optimizer)


def random_weights(mesh: Mesh, *, adapter: LoRAConfig | None = ADAPTER, seed: int = 5) -> nnx.State:
    """Base and, if wanted, an adapter that bites, on the mesh."""
    model = make_model(MODEL, nnx.Rngs(seed))
    if adapter:
        lora.add(model, adapter, nnx.Rngs(seed))
        randomize(model)
    state = nnx.state(model)
    return jax.device_put(state, parameter_shardings(state, mesh))


def assert_equal(found: dict[str, NDArray], wanted: dict[str, NDArray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.dtype == found[name].dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# ------------------------------------------------------------------------------------------------ what is trained


@pytest.mark.parametrize(
    "config", [MODEL, dataclasses.replace(GPT_NEOX, param_dtype="bfloat16")], ids=["gemma2", "gpt_neox-bfloat16"]
)
def test_only_the_adapter_is_trained(config: Any) -> None:
    """It alone moves and has moments, all float32; the base does not change by a bit."""
    run, plain = start(config, ema=True), start(config, adapter=None)
    batch = make_batch()
    assert_equal(named(run.state.frozen), named(plain.state.params))
    # At step 0 the adapted model is its base.
    sums = run.loss_sums(run.state.eval_weights, batch)
    np.testing.assert_array_equal(sums, plain.loss_sums(plain.state.params, batch))

    numbers = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    assert {path[-1] for path, _ in nnx.to_flat_state(run.state.params)} == {"lora_a", "lora_b"}
    for tree in (run.state.params, run.state.ema, *(optax.tree.get(run.state.opt_state, m) for m in ("mu", "nu"))):
        assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == numbers
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tree))
    of_optimizer = sum(leaf.size for leaf in jax.tree.leaves(run.state.opt_state))
    guard = run_config().guards.window + 8  # losses of the last steps, and counters
    assert 2 * numbers <= of_optimizer <= 2 * numbers + guard

    before, state, step = named(run.state.params), run.state, run.step(ema_decay=0.9)
    for seed in range(4):
        state, _ = step(state, make_batch(seed=seed))
    assert_equal(named(state.frozen), named(plain.state.params))
    for name, value in named(state.params).items():
        assert np.abs(value - before[name]).max() > 1e-4, name
    assert np.abs(run.loss_sums(state.eval_weights, batch) - sums).max() > 1e-3


def test_training_lowers_the_loss() -> None:
    run = start(optimizer=optax.adam(3e-2), adapter=LoRAConfig(rank=8, alpha=16.0))
    step, state, batch, losses = run.step(), run.state, make_batch(rows=2), []
    for _ in range(80):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]


def test_no_gradient_of_the_base_is_computed() -> None:
    """Of the three products a weight takes part in (forward, input's and weight's gradient), one is not made."""
    config = dataclasses.replace(MODEL, vocab_size=1024, embed_dim=128, ffw_dim=512, head_dim=32)

    def compiled(adapter: LoRAConfig | None) -> Any:
        optimizer, mesh = make_optimizer(run_config()), make_mesh(ONE, jax.devices()[:1])
        plan = StatePlan(config, optimizer, mesh, adapter=adapter)
        step = make_train_step(plan.graphdef, optimizer, mesh, plan.shardings, n_tasks=N_TASKS)
        return step.lower(plan.abstract, make_batch()).compile()

    whole, adapted = compiled(None), compiled(ADAPTER)
    flops = [program.cost_analysis()["flops"] for program in (whole, adapted)]
    assert flops[1] < 0.75 * flops[0]
    table = "f32[1024,128]{1,0} dot("  # the gradient of the embedding as output table
    assert table in whole.as_text()
    assert table not in adapted.as_text()
    # The state: weights alone, rather than weights and two moments.
    sizes = [program.memory_analysis().argument_size_in_bytes for program in (whole, adapted)]
    assert sizes[1] < 0.4 * sizes[0]


# ------------------------------------------------------------------------------------------------------- dropout


def test_dropout_is_keyed_and_off_in_evaluation() -> None:
    run = start(optimizer=optax.sgd(0.0), adapter=dataclasses.replace(ADAPTER, dropout=0.3))
    mesh, batch = run.mesh, make_batch()
    state = run.state._replace(params=nnx.filter_state(random_weights(mesh), nnx.LoRAParam))

    def two_losses(seed: int | None) -> list[float]:
        step = run.step(dropout_seed=seed)
        s, first = step(jax.tree.map(jnp.copy, state), batch)
        return [float(first["loss"]), float(step(s, batch)[1]["loss"])]

    a, b, off = two_losses(1), two_losses(2), two_losses(None)
    assert a == two_losses(1)
    assert len({*a, *b, *off}) == 5  # off is the same twice
    sums = run.loss_sums(state.eval_weights, batch)
    np.testing.assert_allclose(sums[0].sum() / sums[1].sum(), off[0], rtol=1e-6)


# -------------------------------------------------------------------------------------------------------- meshes


@pytest.mark.parametrize(
    "shape", [{"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"replica": 2, "fsdp": 2, "tensor": 2}], ids=str
)
def test_same_on_any_mesh(shape: dict[str, int]) -> None:
    """Two steps of plain gradient descent from an adapter that bites: changes are gradients."""

    def two_steps(shape: dict[str, int]) -> tuple[list[dict[str, NDArray]], list[float]]:
        optimizer = optax.sgd(0.5)
        mesh = make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])
        run = start(optimizer=optimizer, shape=shape, weights=random_weights(mesh))
        step, state, params, losses = run.step(), run.state, [named(run.state.params)], []
        for seed in range(2):
            state, metrics = step(state, jax.device_put(make_batch(rows=16, seed=seed), batch_sharding(mesh)))
            params.append(named(state.params))
            losses.append(float(metrics["loss"]))
        for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(run.shardings)):
            assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
        return params, losses

    (wanted, losses), (found, sharded_losses) = two_steps(ONE), two_steps(shape)
    np.testing.assert_allclose(sharded_losses, losses, rtol=2e-5)
    assert_equal(found[0], wanted[0])
    for i in (0, 1):
        for name in wanted[0]:
            change = wanted[i + 1][name] - wanted[i][name]
            assert np.abs(change).max() > 1e-4, name
            np.testing.assert_allclose(
                found[i + 1][name] - found[i][name],
                change,
                rtol=0,
                atol=2e-4 * np.abs(change).max() + 2e-7,
                err_msg=name,
            )


# ------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("with_adapter", [False, True])
def test_given_weights_are_used(with_adapter: bool) -> None:
    """The base is what is given, and so is an adapter to go on from; else that is new and changes nothing."""
    mesh = make_mesh({"fsdp": 8})
    weights = random_weights(mesh, adapter=ADAPTER if with_adapter else None)
    given = {name: value.copy() for name, value in named(weights).items()}  # weights are donated
    run, random = start(shape={"fsdp": 8}, weights=weights), start(shape={"fsdp": 8})
    found = named(run.state.eval_weights)
    assert {name: found[name] for name in given}.keys() == given.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert all(
        np.abs(named(random.state.frozen)[n] - v).max() > 0 for n, v in named(run.state.frozen).items() if v.any()
    )
    news = {name: value for name, value in found.items() if name not in given}
    assert len(news) == (0 if with_adapter else len(jax.tree.leaves(run.state.params)))
    assert not any(value.any() for name, value in news.items() if "lora_b" in name)
    assert all(value.any() for name, value in news.items() if "lora_a" in name)


# --------------------------------------------------------------------------------------------------- checkpoints


def save(workdir: Path, state: TrainState) -> None:
    checkpoints = Checkpoints(str(workdir), every=1)
    checkpoints.save(int(state.step), state, {"row": 24}, {"config": {}})
    checkpoints.close()


def restore(workdir: Path, like: TrainState) -> TrainState:
    checkpoints = Checkpoints(str(workdir), every=1)
    state = checkpoints.restore(like)[0]
    checkpoints.close()
    return state


def test_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    shape = {"fsdp": 4, "tensor": 2}
    run, fresh = start(shape=shape, ema=True), start(shape=shape, ema=True, seed=1)
    step, state = run.step(ema_decay=0.9), run.state
    for seed in range(3):
        state, _ = step(state, make_batch(seed=seed))
    save(tmp_path, state)
    base = jax.tree.map(jnp.copy, state.frozen)  # which a run is given when it starts, and again
    restored = restore(tmp_path, fresh.state._replace(frozen=base))
    assert_equal(named(restored), named(state))
    batch = make_batch(seed=3)
    assert_equal(named(step(restored, batch)[0]), named(step(state, batch)[0]))


def test_a_checkpoint_holds_the_adapter_alone(tmp_path: Path) -> None:
    config = dataclasses.replace(MODEL, vocab_size=4096, embed_dim=128, ffw_dim=512)
    run, other = start(config), start(config, seed=1)
    save(tmp_path, run.state)
    on_disk = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert on_disk < 200_000
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(run.state.frozen)) > 4_000_000
    restored = restore(tmp_path, other.state)
    assert_equal(named(restored.params), named(run.state.params))
    assert_equal(named(restored.frozen), named(other.state.frozen))  # what the run was given, not what was there
    assert any(v.any() for n, v in named(restored.params).items() if "lora_a" in n)


# Orbax leaves the reads of a failed restore to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_another_adapter_does_not_fit(tmp_path: Path) -> None:
    run = start()
    save(tmp_path, run.state)
    for adapter in (None, LoRAConfig(rank=3), LoRAConfig(rank=2, targets=("q",))):
        like = StatePlan(MODEL, run.optimizer, run.mesh, adapter=adapter).abstract
        with pytest.raises(ValueError, match="does not fit this configuration"):
            restore(tmp_path, like)
    gc.collect()


def test_weights_of_another_model_are_refused() -> None:
    mesh = make_mesh(ONE, jax.devices()[:1])
    weights = nnx.state(make_model(GPT_NEOX, nnx.Rngs(0)))
    with pytest.raises(ValueError, match="not those of the model: .* is on one side only"):
        start(weights=jax.device_put(weights, parameter_shardings(weights, mesh)))
    whole = random_weights(mesh, adapter=None)
    del whole["final_norm"]
    with pytest.raises(ValueError, match=r"final_norm\.scale is on one side only"):
        start(weights=whole)
