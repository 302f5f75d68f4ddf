"""Evaluated runs side by side: a table a suite with a row a run."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2s_jax import report
from c2s_jax.evaluation import controls, suite_pages

COLUMNS = {
    "annotation": ("accuracy", "macro_f1", "unparsed", "ece"),
    "generation": ("valid", "unique", "overlap", "knn_accuracy", "scfid", "scfid_model"),
}
TITLES = {"annotation": "Cell type annotation", "generation": "Conditional cell generation"}


def read_runs(workdirs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``metrics.json`` of evaluated runs by name: the folder's, or its path where two folders have one name.

    Raises
    ------
    ValueError
        If a folder is given twice, has no evaluation, or was evaluated on another split or other numbers of cells.
    """
    names = [Path(folder).resolve().name for folder in workdirs]
    out: dict[str, dict[str, Any]] = {}
    for folder, name in zip(workdirs, names):
        path = Path(folder) / "metrics.json"
        if not path.is_file():
            raise ValueError(f"{folder} holds no metrics.json; evaluate it first (python -m c2s_jax.evaluate)")
        key = name if names.count(name) == 1 else os.path.normpath(folder)
        if key in out:
            raise ValueError(f"{folder} is given twice")
        out[key] = json.loads(path.read_text())
    (first, own), *others = out.items()
    mine = _asked(own)
    for name, metrics in others:
        theirs = _asked(metrics)
        for what in mine:
            if theirs.get(what, mine[what]) != mine[what]:
                raise ValueError(
                    f"{first} and {name} cannot be compared: held-out {what} {mine[what]} and {theirs[what]}"
                )
    return out


def _asked(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What two evaluations have to share: split, cells, and how many of them each suite asked about."""
    suites = {k: v for k, v in suite_pages.flat(metrics).items() if isinstance(v, Mapping) and "n" in v}
    return {key: metrics[key] for key in ("split", "cells")} | {f"cells of {k}": v["n"] for k, v in suites.items()}


def tables(runs: Mapping[str, Mapping[str, Any]]) -> list[report.Table]:
    """One table a suite that all runs have, the best run of each column bold, flagged results marked.

    Baselines that do not depend on the model are those of the first run; they stand under the runs.
    """
    flat = {name: suite_pages.flat(metrics) for name, metrics in runs.items()}
    suites = [*COLUMNS, *suite_pages.shown(next(iter(flat.values())))]
    shown = [suite for suite in suites if all(metrics.get(suite) for metrics in flat.values())]
    return [_table(suite, {name: metrics[suite] for name, metrics in flat.items()}) for suite in shown]


def write(path: str | Path, runs: Mapping[str, Mapping[str, Any]]) -> Path:
    """A page with all tables, and what each run's evaluation flags."""
    flags = {f"Red flags of {name}": metrics["flags"] or ["None."] for name, metrics in runs.items()}
    n = next(iter(runs.values()))["cells"]
    return report.write_report(
        path,
        title="Runs side by side",
        subtitle=f"{', '.join(runs)}: the same {n:,} held-out cells",
        metrics=dict(runs),
        tables=tables(runs),
        tiles=[],
        notes=flags,
    )


def _table(suite: str, runs: Mapping[str, Mapping[str, Any]]) -> report.Table:
    rows: dict[str, Mapping[str, Any]] = {}
    for name, values in runs.items():
        unbeaten = controls.unbeaten(values, suite_pages.scrambles_of(suite, values))
        mark = f" ⚑ {', '.join(sorted(unbeaten))}" if unbeaten else ""
        rows[name + mark] = {**values, "ece": values.get("calibration", {}).get("ece")}
    first = next(iter(runs.values()))
    baselines, apart = suite_pages.sides(first, ("baselines",))
    rows |= baselines
    wanted = COLUMNS.get(suite) or suite_pages.COLUMNS[suite_pages.kind(suite)]
    columns = [key for key in wanted if any(scores.get(key) is not None for scores in rows.values())]
    return report.comparison_table(
        rows,
        metrics=columns,
        title=TITLES.get(suite) or suite_pages.title(suite),
        caption="A flag (⚑) names what does not beat its scramble.",
        n=first["n"],
        section="Runs",
        apart=apart,
    )
