"""What a run tells about itself: hung steps, compilations, speed, traces."""

import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from c2s_jax.parallel import InMesh, make_mesh
from c2s_jax.training import CountedStep, Meter, Profile, Watchdog, progress_bar, progress_figures
from c2s_jax.training.profile import check_profile
from c2s_jax.training.writers import COLUMNS


def wait_for(path: Path, text: str) -> str:
    for _ in range(3000):
        if path.exists() and text in path.read_text():
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(f"{text!r} never came")


def test_watchdog_shows_where_a_step_hangs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def hang() -> None:
        written = wait_for(tmp_path / "stacks.0.txt", "in hang")
        assert "during step 7, on process 0" in written

    watchdog = Watchdog(str(tmp_path), seconds=0.05, abort=False)
    watchdog.alive("step 7")
    hang()
    watchdog.close()
    told = capfd.readouterr().err
    assert "No sign of life for 0.05 s during step 7" in told
    assert "in hang" in told
    assert told.count("No sign of life") == 1


def test_watchdog_is_silent_about_a_live_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watchdog = Watchdog(str(tmp_path), seconds=30, abort=True)
    for step in range(10):
        watchdog.alive(f"step {step}")
    watchdog.close()
    Watchdog(str(tmp_path), seconds=0, abort=True).close()
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_watchdog_ends_a_process_that_hangs(tmp_path: Path) -> None:
    program = (
        "import sys, threading; from c2s_jax.training.watchdog import Watchdog\n"
        "Watchdog(sys.argv[1], seconds=0.1, abort=True)\n"
        "threading.Event().wait()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 70
    assert "Run again to go on from the last checkpoint" in ended.stderr


@pytest.fixture
def counted() -> CountedStep:
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    step = InMesh(jax.jit(lambda state, batch: (state + batch["x"].sum(), batch["x"] * 2), donate_argnums=0), mesh)
    return CountedStep(step, "the step")


def everywhere(counted: CountedStep) -> jax.Array:
    """A state that lies as the step returns it."""
    return jax.device_put(jnp.zeros(()), NamedSharding(counted._step._mesh, PartitionSpec()))


def test_a_second_compilation_says_what_changed(counted: CountedStep, caplog: pytest.LogCaptureFixture) -> None:
    state = everywhere(counted)
    for _ in range(3):
        state, _ = counted(state, {"x": jnp.ones((4, 8))})
    assert counted.compilations == 1
    assert not caplog.records
    counted(state, {"x": jnp.ones((5, 8))})
    assert counted.compilations == 2
    (record,) = caplog.records
    message = record.getMessage()
    assert "the step was compiled again (2 times now)" in message
    assert "1.x: float32[4, 8]" in message
    assert "-> float32[5, 8]" in message


def test_implicit_transfers_are_refused(counted: CountedStep) -> None:
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        counted(jnp.zeros(()), {"x": np.ones((4, 8), np.float32)})


def test_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    meter = Meter(tokens_per_step=100, flops_per_token=3e12, devices=4, peak_flops=500e12, began=900.0, in_steps=50.0)
    for seconds, useful in ((2.0, 90), (4.0, 80)):
        meter.step(jnp.int32(useful))
        now[0] += seconds
    with meter.outside():
        now[0] += 44.0
    figures = meter.read()
    assert figures["train/step_seconds"] == pytest.approx(3.0)
    assert figures["train/tokens_per_second"] == pytest.approx(170 / 6)
    assert figures["train/tokens_per_second_per_chip"] == pytest.approx(170 / 24)
    assert figures["train/useful_token_share"] == pytest.approx(0.85)
    assert figures["train/tflops_per_chip"] == pytest.approx(200 * 3 / 6 / 4)
    assert figures["train/mfu"] == pytest.approx(25 / 500)
    assert figures["train/goodput"] == pytest.approx(56 / 150)
    assert meter.in_steps == pytest.approx(56.0)
    now[0] += 50.0  # nothing done
    assert meter.read() == {"train/goodput": pytest.approx(56 / 200)}
    meter.restart(50.0)  # back to the checkpoint: the six seconds are lost
    assert meter.read()["train/goodput"] == pytest.approx(0.25)


@pytest.mark.parametrize("mfu", [{}, {"train/mfu": 0.4567}])
def test_progress_line_fits_80_columns(mfu: dict[str, float], capfd: pytest.CaptureFixture[str]) -> None:
    scalars = {"train/loss": 12.345678, "train/step_seconds": 123.456, "train/tokens_per_second": 12_345_678.9, **mfu}
    bar = progress_bar(1_000_000, 0)
    bar.start_t -= 359_999  # a hundred hours
    bar.n = 345_678
    bar.set_postfix_str(progress_figures(scalars))
    bar.close()
    line = capfd.readouterr().err.strip("\n").split("\r")[-1]
    assert len(line) <= COLUMNS == 80
    assert line.endswith("loss 12.35 123s 12.3Mtok/s" + (" MFU 46%]" if mfu else "]"))
    assert "345678/1000000 [99:59:59<" in line


def test_profile_of_some_steps(tmp_path: Path) -> None:
    profile = Profile(str(tmp_path), (2, 3))
    double = jax.jit(lambda x: x * 2)
    for step in (1, 2, 3, 4):
        profile.before(step)
        assert profile._running == (step in (2, 3))
        profile.after(step, double(jnp.ones(10)))
    profile.close()
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_no_profile_of_any_step(tmp_path: Path) -> None:
    profile = Profile(str(tmp_path), ())
    for step in (0, 1):
        profile.before(step)
        assert not profile._running
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [(3,), (3, 2), (0, 2), (1, 2, 3)])
def test_steps_that_cannot_be_profiled(steps: tuple[int, ...]) -> None:
    check_profile(())
    check_profile((3, 3))
    with pytest.raises(ValueError, match=r"profile\.steps="):
        check_profile(steps)
