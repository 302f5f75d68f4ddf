"""Evaluation by several processes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import CONFIG, Run, start_processes

EVALUATION = (
    "at_end=True",
    "max_genes=20",
    "max_cells=30",
    "batch_size=16",
    "pca_components=8",
    "knn=3",
    "loss_samples=20",
    "more_suites=('embedding','scaling')",
)
FLAGS = [f"--config.evaluation.{setting}" for setting in EVALUATION]


def numbers(tree: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from numbers(value, f"{name}.{key}")
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from numbers(value, f"{name}.{i}")
    elif isinstance(tree, int | float):
        yield name, tree


@pytest.fixture(scope="module")
def config(bundle, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "config.py"
    path.write_text(CONFIG.format(corpus=str(bundle.corpus), tokenizer=str(bundle.tokenizer)))
    return path


def test_two_processes_measure_what_one_with_two_devices_does(config, tmp_path) -> None:
    run = Run(config, tmp_path / "one", *FLAGS, devices=2)
    assert run.end() == 0, run.output
    both = start_processes(config, tmp_path / "two", 2, *FLAGS)
    assert [run.end() for run in both] == [0, 0], both[0].output + both[1].output
    assert [run.output.count("Report: ") for run in both] == [1, 0]
    one, two = (dict(numbers(json.loads((tmp_path / name / "metrics.json").read_text()))) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert one[".step"] == 12
    for name, value in one.items():
        if not name.startswith(".seconds"):
            assert two[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    assert (tmp_path / "two" / "report.html").stat().st_size > 100_000
    assert list((tmp_path / "two" / "evaluation").glob("*.new")) == []
