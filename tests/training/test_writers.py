"""Metric lines survive kills and resumed runs."""

import sys
from pathlib import Path

import pytest

from c2s_jax.training import MetricWriter, read_metrics


def steps(workdir: Path) -> list[float]:
    return [line["step"] for line in read_metrics(str(workdir / "metrics.jsonl"))]


def test_a_resumed_run_drops_lines_past_its_checkpoint(tmp_path: Path) -> None:
    writer = MetricWriter(str(tmp_path))
    for step in (10, 20, 30, 40):
        writer.write(step, {"train/loss": 1 / step})
    writer.close()
    assert steps(tmp_path) == [10, 20, 30, 40]
    writer = MetricWriter(str(tmp_path), start_step=20)
    assert steps(tmp_path) == [10, 20]
    writer.write(30, {"train/loss": 7.0})
    writer.close()
    lines = read_metrics(str(tmp_path / "metrics.jsonl"))
    assert lines[-1] == {"step": 30, "train/loss": 7.0}
    assert lines[0] == {"step": 10, "train/loss": 0.1}
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents*"))
    assert not list(tmp_path.glob("*.tmp"))


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n')
    MetricWriter(str(tmp_path), start_step=0).close()
    assert steps(tmp_path) == []


def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    writer = MetricWriter(str(tmp_path))
    writer.write(1, {"a": 2.0})
    assert steps(tmp_path) == [1]
    writer.close()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    assert read_metrics(str(path)) == [{"step": 1, "a": 2.0}]
    writer = MetricWriter(str(tmp_path), start_step=2)
    writer.write(3, {"a": 1.0})
    writer.close()
    assert steps(tmp_path) == [1, 3]


def test_a_broken_line_inside_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "a"\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 is not JSON"):
        read_metrics(str(path))


def test_no_file_is_no_lines(tmp_path: Path) -> None:
    assert read_metrics(str(tmp_path / "metrics.jsonl")) == []


WANDB = {"project": "cells", "entity": "", "name": "tiny"}


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: a run goes on under its identity, and all metrics hang on our own step."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for start in (0, 1):
        writer = MetricWriter(str(tmp_path), start, wandb=WANDB, config={"seed": 3})
        assert writer._run.config["seed"] == 3
        writer.write(start + 1, {"train/loss": 2.0})
        assert writer._run.summary["step"] == start + 1
        writer.close()
    (identity,) = {path.name.split("-")[-1] for path in (tmp_path / "wandb").glob("offline-run-*")}
    assert identity == (tmp_path / "wandb_id").read_text()
    assert steps(tmp_path) == [1, 2]


def test_weights_and_biases_wished_for_but_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"wandb\.project='cells' is set, but wandb cannot be imported .*pip install"):
        MetricWriter(str(tmp_path), wandb=WANDB)
    MetricWriter(str(tmp_path), wandb={**WANDB, "project": ""}).close()  # not even looked for
