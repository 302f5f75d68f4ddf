"""Runs that are killed, asked to end, and damaged end up where one that was left alone does."""

import json
import random
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.runs import CONFIG, Run, last_state, lines, losses, saved_steps


@pytest.fixture(scope="module")
def config(bundle, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG.format(corpus=str(bundle.corpus), tokenizer=str(bundle.tokenizer)))
    return path


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    """Workdir of a run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run = Run(config, workdir)
    assert run.end() == 0, run.output
    return workdir


def same_lines(one: Path, other: Path) -> None:
    """All losses, norms and validation losses are the same, bit for bit."""
    names = ("step", "train/loss", "train/gradient_norm", "validation/loss", "train/learning_rate")

    def known(workdir: Path) -> list[dict]:
        return [{k: v for k, v in line.items() if k.startswith(names)} for line in lines(workdir)]

    assert known(one) == known(other)


def same_state(one: Path, other: Path) -> None:
    wanted, found = last_state(one), last_state(other)
    assert wanted.keys() == found.keys()
    assert len(wanted) > 20
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_killed_and_asked_to_end_again_and_again(config, alone, tmp_path):
    """``kill -9`` at random moments, once in the first steps and once after a resumption, and SIGTERM in between."""
    seed = random.SystemRandom().randrange(1000)
    moments = random.Random(seed)
    workdir = tmp_path / "run"
    print(f"seed {seed}")  # shown when the test fails

    run = Run(config, workdir, delay=0.15)
    run.until_step(moments.randint(1, 5))
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL

    run = Run(config, workdir, delay=0.15)
    run.until_step(moments.randint(6, 7))
    run.signal(signal.SIGTERM)
    assert run.end() == 75, run.output
    (said,) = [line for line in run.output.splitlines() if line.startswith("Asked to end: step ")]
    step = int(said.removeprefix("Asked to end: step ").split()[0])
    assert saved_steps(workdir)[-1] == step >= 6
    assert "goes on from there" in said

    run = Run(config, workdir, delay=0.15)
    run.until_step(moments.randint(step + 1, 10))
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert f"Restored step {step} " in run.output

    run = Run(config, workdir)
    assert run.end() == 0, run.output
    same_lines(workdir, alone)
    same_state(workdir, alone)
    goodput = {line["step"]: line["train/goodput"] for line in lines(workdir) if "train/goodput" in line}
    assert 0 < goodput[12] < 1
    assert json.loads((workdir / "began.json").read_text())["unix"] > 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damaged_newest_checkpoint(config, alone, tmp_path):
    import shutil

    workdir = Path(shutil.copytree(alone, tmp_path / "run"))
    before, newest = saved_steps(workdir)
    largest = max((workdir / "checkpoints" / str(newest) / "params").rglob("*"), key=lambda p: p.stat().st_size)
    flip(largest)
    run = Run(config, workdir)
    assert run.end() == 0, run.output
    assert "is DAMAGED and will not be used" in run.output
    assert f"{largest.name} has the right size, but not the bytes that were written" in run.output
    assert f"Restored step {before} " in run.output
    assert (workdir / "checkpoints" / "damaged" / str(newest)).is_dir()
    same_lines(workdir, alone)
    same_state(workdir, alone)
    assert losses(workdir).keys() == set(range(1, 13))
