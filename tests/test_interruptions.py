"""Runs that are killed, asked to end, and damaged end up where one that was left alone does."""

import json
import random
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.runs import CONFIG, Run, last_state, lines, losses, saved_steps, start_processes


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


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_killed_asked_to_end_and_damaged(config, alone, tmp_path):
    """``kill -9`` at random moments, SIGTERM in between, whose checkpoint is then damaged by one bit."""
    seed = random.SystemRandom().randrange(1000)
    moments = random.Random(seed)
    workdir = tmp_path / "run"
    print(f"seed {seed}")  # shown when the test fails

    run = Run(config, workdir, delay=0.4)
    run.until_step(moments.randint(1, 5))
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL

    run = Run(config, workdir, delay=0.4)
    run.until_step(moments.randint(6, 7))
    run.signal(signal.SIGTERM)
    assert run.end() == 75, run.output
    (said,) = [line for line in run.output.splitlines() if line.startswith("Asked to end: step ")]
    step = int(said.removeprefix("Asked to end: step ").split()[0])
    assert saved_steps(workdir)[-1] == step >= 6
    assert "goes on from there" in said

    before, newest = saved_steps(workdir)
    largest = max((workdir / "checkpoints" / str(newest) / "params").rglob("*"), key=lambda p: p.stat().st_size)
    flip(largest)
    run = Run(config, workdir, delay=0.4)
    run.until(lambda: f"Restored step {before} " in run.output)
    run.until_step(moments.randint(before + 1, 10))
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert f"checkpoints/{newest} is DAMAGED and will not be used" in run.output
    assert f"{largest.name} has the right size, but not the bytes that were written" in run.output
    assert (workdir / "checkpoints" / "damaged" / str(newest)).is_dir()

    run = Run(config, workdir)
    assert run.end() == 0, run.output
    same_lines(workdir, alone)
    same_state(workdir, alone)
    goodput = {line["step"]: line["train/goodput"] for line in lines(workdir) if "train/goodput" in line}
    assert 0 < goodput[12] < 1
    assert json.loads((workdir / "began.json").read_text())["unix"] > 0


def test_processes_come_and_go(config, alone, tmp_path):
    """Two processes, one killed in mid-step; four, one of them asked to end; then one: the losses are the same."""
    workdir = tmp_path / "run"

    first, second = start_processes(config, workdir, 2, delay=0.4)
    first.until_step(3)
    second.signal(signal.SIGKILL)
    assert second.end() == -signal.SIGKILL
    assert first.end() in (1, -signal.SIGABRT), first.output  # by ours, or by JAX's watch over its processes
    assert re.search("FATAL process 0 of 2 ends|JAX distributed service detected fatal errors", first.output)
    before = saved_steps(workdir)[-1]
    assert before < 12

    four = start_processes(config, workdir, 4, delay=0.4)
    four[0].until_step(before + 2)
    four[3].signal(signal.SIGTERM)
    assert [run.end() for run in four] == [75] * 4, four[0].output
    assert f"Restored step {before} " in four[0].output
    assert "4 × cpu of 4 processes" in four[0].output
    assert [run.output.count("Asked to end: step") for run in four] == [1, 0, 0, 0]  # process 0 speaks
    after = saved_steps(workdir)[-1]
    assert before + 2 <= after < 12

    run = Run(config, workdir)
    assert run.end() == 0, run.output
    assert f"Restored step {after} " in run.output
    wanted, found = losses(alone), losses(workdir)
    assert found.keys() == wanted.keys() == set(range(1, 13))
    np.testing.assert_allclose([found[s] for s in wanted], list(wanted.values()), rtol=2e-5)
    tokens = [line["train/useful_token_share"] for line in lines(workdir) if "train/useful_token_share" in line]
    assert all(0.5 < share <= 1 for share in tokens)  # of all processes' rows
