"""The self-contained HTML page."""

import base64
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from c2s_jax.report.style import Figure
from c2s_jax.report.tables import Table

_SECTIONS = (
    *("Annotation", "Generation", "Embedding", "Bulk", "Perturbation", "L1000", "Spatial", "Caption", "Abstract", "Qa"),
    *("Loss", "Reconstruction", "Training"),
)


@dataclass(frozen=True)
class Tile:
    """A headline number: its name, its value as written, and one line that puts it in proportion."""

    name: str
    value: str
    beside: str = ""


def write_report(
    path: str | Path,
    *,
    title: str,
    metrics: Mapping[str, Any],
    figures: Sequence[Figure] = (),
    notes: Mapping[str, str | Sequence[str]] | None = None,
    config: Mapping[str, Any] | None = None,
    tables: Sequence[Table] = (),
    subtitle: str = "",
    tiles: Sequence[Tile] | None = None,
) -> Path:
    """Write one HTML file that needs nothing beside it: no network, no script.

    Parameters
    ----------
    path
        File to write; replaced in one step, so a reader never sees half a page.
    title, subtitle
        Heading, and one line under it (data, model, run).
    metrics
        Nested numbers as in ``metrics.json``; all are listed at the end.
    figures, tables
        Shown under their sections: annotation, generation, further suites, reconstruction, training, then others.
    notes
        Heading → a paragraph or a list of points (what was tuned, what to beware of), after the figures.
    config
        The run's configuration, folded at the end.
    tiles
        Headline numbers; by default those of `headline_tiles`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("c2s_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(cell=_cell, base64=lambda data: base64.b64encode(data).decode())
    html = environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        tiles=headline_tiles(metrics) if tiles is None else list(tiles),
        sections=_by_section(tables, figures),
        notes={k: v if isinstance(v, str) else list(v) for k, v in (notes or {}).items()},
        metrics=[(k, _cell(v)) for k, v in _flat(metrics)],
        config=[(k, str(v)) for k, v in _flat(config or {})],
    )
    return _replace(Path(path), html)


def headline_tiles(metrics: Mapping[str, Any]) -> list[Tile]:
    """Headline numbers that ``metrics.json`` holds, each beside what it should be read against."""
    flat = dict(_flat(metrics))
    tiles = []
    if (value := flat.get("annotation.accuracy")) is not None:
        linear = flat.get("annotation.baselines.logistic_regression.accuracy")
        majority = flat.get("annotation.baselines.majority.accuracy")
        beside = [f"logistic regression {linear:.1%}"] if linear is not None else []
        beside += [f"majority class {majority:.1%}"] if majority is not None else []
        tiles.append(Tile("Annotation accuracy", f"{value:.1%}", ", ".join(beside)))
    if (value := flat.get("annotation.macro_f1")) is not None:
        linear = flat.get("annotation.baselines.logistic_regression.macro_f1")
        beside_f1 = f"logistic regression {linear:.2f}" if linear is not None else "mean over cell types"
        tiles.append(Tile("Macro-F1", f"{value:.2f}", beside_f1))
    if (value := flat.get("generation.knn_accuracy")) is not None:
        tiles.append(Tile("Generated cells of the right type", f"{value:.1%}", "by vote of their nearest real cells"))
    if (value := flat.get("generation.valid")) is not None:
        unique = flat.get("generation.unique")
        beside_valid = f"{unique:.1%} without repeats" if unique is not None else ""
        tiles.append(Tile("Generated words that are genes", f"{value:.1%}", beside_valid))
    if (value := flat.get("reconstruction.r2")) is not None:
        tiles.append(Tile("Rank → expression R²", f"{value:.3f}", "variance that the order of genes explains"))
    return tiles


def _by_section(tables: Sequence[Table], figures: Sequence[Figure]) -> list[tuple[str, list[Table], list[Figure]]]:
    met = dict.fromkeys([*(t.section for t in tables), *(f.section for f in figures)])
    order = [x for x in _SECTIONS if x in met] + [x for x in met if x not in _SECTIONS]
    return [(s, [t for t in tables if t.section == s], [f for f in figures if f.section == s]) for s in order]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as (dotted key, value) pairs, in order."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) or hasattr(value, "items")
        pairs += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return pairs


def _cell(value: Any) -> Any:
    """A table cell as shown: numbers short, missing ones a dash, text and markup as they are."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{float(value):.4g}" if hasattr(value, "__float__") else str(value)


def _replace(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", text=True)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
