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


def kept(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def test_what_is_kept(tmp_path: Path, trained: TrainState) -> None:
    """The two newest, multiples of 4, and the two with the lowest loss; also by a run that goes on."""
    losses = {1: 5.0, 2: 1.0, 3: 4.0, 4: 6.0, 5: np.nan, 6: 2.0, 7: None, 8: 7.0, 9: 8.0, 10: 1.5, 11: 9.0}
    options = dict(every=1, keep=2, keep_every=4, keep_best=2)
    for part in (range(1, 8), range(8, 12)):
        checkpoints = Checkpoints(str(tmp_path), **options)
        for step in part:
            metrics = None if losses[step] is None else {"validation/loss": losses[step], "other": 0.0}
            checkpoints.save(step, trained, {"row": step}, META, metrics=metrics)
        checkpoints.close()
    assert kept(tmp_path) == [2, 4, 8, 10, 11]


def test_the_best_by_a_metric_that_is_not_measured(tmp_path: Path, trained: TrainState) -> None:
    checkpoints = Checkpoints(str(tmp_path), every=1, keep_best=1, best="validation/los")
    with pytest.raises(ValueError, match=r"checkpoint\.best='validation/los' was not .* are validation/loss, other"):
        checkpoints.save(1, trained, {"row": 1}, META, metrics={"validation/loss": 1.0, "other": 0.0})
    checkpoints.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("item", ["params", "opt_state", "data", "metrics"])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, trained: TrainState, item: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(str(tmp_path), every=1, keep=5)
    for step in (1, 2, 3):
        checkpoints.save(step, trained, {"row": step}, META, metrics={"validation/loss": 1.0})
    checkpoints.close()
    directory = tmp_path / "checkpoints"
    files = [p for p in (directory / "3" / item).rglob("*") if p.is_file() and p.stat().st_size]
    flip(max(files, key=lambda p: p.stat().st_size))
    with next((directory / "2" / "opt_state").rglob("d/*")).open("r+b") as file:
        file.truncate(20)
    reader = Checkpoints(str(tmp_path), every=1, writer=False)
    assert reader.latest == 1
    assert kept(tmp_path) == [1, 2, 3]  # a reader moves nothing
    assert reader.restore(trained)[1] == {"row": 1}
    reader.close()
    caplog.clear()
    writer = Checkpoints(str(tmp_path), every=1, keep=5)
    assert writer.latest == 1
    assert kept(tmp_path) == [1]
    assert sorted(p.name for p in (directory / "damaged").iterdir()) == ["2", "3"]
    loud = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert any("checkpoints/3 is DAMAGED" in m and "not the bytes that were written" in m for m in loud)
    assert any("checkpoints/2 is DAMAGED" in m and "has 20 bytes" in m for m in loud)
    writer.save(2, trained, {"row": 22}, META)  # the run comes by here again
    writer.close()
    again = Checkpoints(str(tmp_path), every=1)
    assert again.restore(trained)[1] == {"row": 22}
    again.close()


def test_all_damaged_is_an_error(tmp_path: Path, trained: TrainState) -> None:
    save(tmp_path, trained, 1, 2)
    for step in (1, 2):
        flip(next((tmp_path / "checkpoints" / str(step) / "params").rglob("d/*")))
    with pytest.raises(ValueError, match=r"no checkpoint of .* is whole:\s+step 2: .*\s+step 1: (?s:.*)from a copy"):
        Checkpoints(str(tmp_path), every=1)
    assert kept(tmp_path) == [1, 2]


def test_a_run_shrinks_from_eight_devices_to_one(tmp_path: Path) -> None:
    """Saved and restored on 8, 4, 2 and 1 devices, the losses are those of a run that stayed where it was."""
    optimizer = make_optimizer(run_config())
    stayed: list[float] = []
    moved: list[float] = []
    for devices in (8, 4, 2, 1):
        mesh = make_mesh({"fsdp": -1}, jax.devices()[:devices])
        graphdef, state, shardings = create_state(MODEL, optimizer, mesh, 0, ema=True)
        step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS, ema_decay=0.9)
        checkpoints = Checkpoints(str(tmp_path), every=1)
        if devices == 8:
            other = jax.tree.map(lambda x: x.copy(), state)
            for seed in range(12):
                other, metrics = step(other, make_batch(seed=seed))
                stayed.append(float(metrics["loss"]))
        else:
            state, data, _ = checkpoints.restore(state)
            assert data == {"row": 8 * len(moved)}
        for _ in range(3):
            state, metrics = step(state, make_batch(seed=len(moved)))
            moved.append(float(metrics["loss"]))
        checkpoints.save(len(moved), state, {"row": 8 * len(moved)}, META)
        checkpoints.close()
    assert moved[:3] == stayed[:3]
    np.testing.assert_allclose(moved, stayed, rtol=2e-5)
    assert max(stayed) - min(stayed) > 0.01
