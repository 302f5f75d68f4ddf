"""Checkpoints: nothing is lost, nothing half-written is seen, nothing foreign is loaded."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from c2s_jax.models import Gemma2Config
from c2s_jax.parallel import make_mesh
from c2s_jax.training import Checkpoints, TrainState, create_state, make_optimizer, make_train_step
from tests.toy import MODEL, N_TASKS, make_batch, named, run_config

META = {"config": {"steps": 100, "model": {"embed_dim": 16}}, "tokenizer": "abc"}


def start(
    config: Gemma2Config = MODEL, shape: dict[str, int] | None = None, *, seed: int = 0, ema: bool = True
) -> tuple[nnx.GraphDef, TrainState, TrainState, jax.sharding.Mesh, optax.GradientTransformation]:
    optimizer = make_optimizer(run_config())
    mesh = make_mesh(shape or {"fsdp": 8})
    return *create_state(config, optimizer, mesh, seed, ema=ema), mesh, optimizer


@pytest.fixture(scope="module")
def trained() -> TrainState:
    """A state after three steps, with moments, a running mean and counters that differ from a fresh one's."""
    graphdef, state, shardings, mesh, optimizer = start()
    step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS, ema_decay=0.9)
    for seed in range(3):
        state, _ = step(state, make_batch(seed=seed))
    return state


def save(workdir: Path, state: TrainState, *steps: int, keep: int = 5) -> None:
    checkpoints = Checkpoints(str(workdir), every=1, keep=keep)
    for step in steps:
        checkpoints.save(step, state, {"row": 8 * step}, META)
    checkpoints.close()


@pytest.mark.parametrize("shape", [{"fsdp": 8}, {"replica": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_round_trip_is_exact(tmp_path: Path, trained: TrainState, shape: dict[str, int]) -> None:
    """Every bit of parameters, moments, counters and running mean comes back, on the same mesh or another."""
    save(tmp_path, trained, 3)
    _, fresh, _, _, _ = start(shape=shape, seed=1)
    checkpoints = Checkpoints(str(tmp_path), every=1)
    assert checkpoints.latest == 3
    assert checkpoints.meta() == META
    restored, data, meta = checkpoints.restore(fresh)
    checkpoints.close()
    assert (data, meta) == ({"row": 24}, META)
    assert int(restored.step) == 3
    wanted, found = named(trained), named(restored)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert value.dtype == found[name].dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    jax.tree.map(lambda a, b: None, restored, fresh)  # one structure
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(fresh)):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    # The moments are not what a fresh optimizer has, so that losing them would be seen.
    assert max(np.abs(v).max() for k, v in found.items() if ".mu" in k) > 0


def test_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, trained: TrainState) -> None:
    graphdef, fresh, shardings, mesh, optimizer = start(seed=1)
    step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS, ema_decay=0.9)
    save(tmp_path, trained, 3)
    checkpoints = Checkpoints(str(tmp_path), every=1)
    restored, _, _ = checkpoints.restore(fresh)
    checkpoints.close()
    batch = make_batch(seed=3)
    wanted, _ = step(jax.tree.map(lambda x: x.copy(), trained), batch)
    found, _ = step(restored, batch)
    for (name, a), b in zip(named(found).items(), named(wanted).values()):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_saves_when_due_and_keeps_the_newest(tmp_path: Path, trained: TrainState) -> None:
    checkpoints = Checkpoints(str(tmp_path), every=10, keep=2)
    assert checkpoints.latest is None
    for step in (10, 15, 20, 30):
        checkpoints.save(step, trained, {"row": step}, META)
    checkpoints.save(33, trained, {"row": 33}, META, force=True)
    checkpoints.save(33, trained, {"row": 33}, META, force=True)  # already there
    checkpoints.close()
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [30, 33]
    again = Checkpoints(str(tmp_path), every=10)
    assert again.latest == 33
    assert again.restore(trained, step=30)[1] == {"row": 30}
    again.close()


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path, trained: TrainState) -> None:
    """What a process killed while it writes leaves behind: a directory under Orbax's temporary name."""
    save(tmp_path, trained, 3)
    directory = tmp_path / "checkpoints"
    left = directory / "4.orbax-checkpoint-tmp"
    shutil.copytree(directory / "3", left)
    (left / "_CHECKPOINT_METADATA").unlink()
    checkpoints = Checkpoints(str(tmp_path), every=1)
    assert checkpoints.latest == 3
    restored, data, _ = checkpoints.restore(trained)
    assert (int(restored.step), data) == (3, {"row": 24})
    checkpoints.save(4, trained, {"row": 32}, META)  # the next run comes by here again
    checkpoints.close()
    again = Checkpoints(str(tmp_path), every=1)
    assert again.latest == 4
    assert again.restore(trained)[1] == {"row": 32}
    again.close()


@pytest.mark.parametrize(
    ("change", "ema"),
    [({"ffw_dim": 64}, True), ({"num_layers": 2}, True), ({"vocab_size": 128}, True), ({}, False)],
    ids=str,
)
def test_another_architecture_is_an_error(tmp_path: Path, trained: TrainState, change: dict, ema: bool) -> None:
    save(tmp_path, trained, 3)
    _, other, _, _, _ = start(dataclasses.replace(MODEL, **change), ema=ema)
    checkpoints = Checkpoints(str(tmp_path), every=1)
    with pytest.raises(ValueError, match="does not fit this configuration") as error:
        checkpoints.restore(other)
    assert str(tmp_path) in str(error.value)
    assert "another --workdir" in str(error.value)
    checkpoints.close()
