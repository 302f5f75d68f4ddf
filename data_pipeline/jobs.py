"""What a build is to do: sources, options, where; cut into units that workers do one by one."""

import dataclasses
import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from c2s_jax.cells.conversion import check_choices
from c2s_jax.cells.expression import check_empty_cells
from c2s_jax.data import corpus_format as fmt
from data_pipeline.blocks import naming
from data_pipeline.sources import Source, check_fields
from data_pipeline.staging import Staging

UNIT_CELLS = 65_536
_PACKAGES = ("anndata", "array_record", "numpy", "scipy", "tensorflow-datasets")
_SPLIT_BY = ("cell", "dataset", "tile")
_CHOICES = {"duplicates_cells": ("report", "drop", "error"), "ties": ("hash", "cell2sentence")}
_EXPRESSION = ("layer", "use_raw", "gene_column", "scale", "target_sum", "duplicates", "empty_cells")


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What the cells of a corpus depend on, beside the sources. See `build_corpus`."""

    split: tuple[float, ...]
    split_by: str = "cell"
    tile_side: float | None = None
    stratify: str | None = "cell_type"
    seed: int = 0
    top_k: int | None = None
    ties: Any = "hash"
    duplicates_cells: str = "report"
    unit_cells: int = UNIT_CELLS
    held_out: tuple[Mapping[str, Sequence[str]], ...] = ()


@dataclasses.dataclass(frozen=True)
class Unit:
    """Consecutive cells ``start:stop`` of a data set; they share a shard in each split."""

    dataset: int
    number: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def step(self, kind: str) -> str:
        """Name of a step's files for this unit."""
        return f"{kind}-{self.dataset:05d}-{self.number:05d}"


@dataclasses.dataclass(frozen=True)
class Job:
    """A build, as every worker knows it.

    `sums_of` says which source each data set of sums (see `pseudobulk`) is made from, by number.
    """

    sources: tuple[Source, ...]
    options: BuildOptions
    staging: Staging
    sums_of: Mapping[int, int] = dataclasses.field(default_factory=dict)


def units_of(dataset: int, n_cells: int, unit_cells: int) -> list[Unit]:
    """Cut a data set into units; the last may be smaller."""
    starts = range(0, n_cells, unit_cells)
    return [Unit(dataset, i, start, min(n_cells, start + unit_cells)) for i, start in enumerate(starts)]


def unit_of_dataset(dataset: int) -> Unit:
    """The unit of steps that are done once for a data set."""
    return Unit(dataset, 0, 0, 0)


def check(sources: tuple[Source, ...], options: BuildOptions) -> None:
    """Raise `ValueError` for what cannot be built, before any file is opened."""
    if not sources:
        raise ValueError("no input: give at least one AnnData or .h5ad file")
    named = Counter(name for source in sources for name in source.names)
    for name, n in named.items():
        if n > 1:
            raise ValueError(f"{n} data sets are named {name!r}; give each a name of its own (name of its Source)")
    shares = np.asarray(options.split, dtype=np.float64)
    if shares.shape != (len(fmt.SPLITS),):
        raise ValueError(f"split={options.split}: expected {len(fmt.SPLITS)} shares ({', '.join(fmt.SPLITS)})")
    if not ((shares >= 0).all() and abs(shares.sum() - 1) <= 1e-6):
        raise ValueError(f"split fractions {list(options.split)} must be non-negative and sum to 1")
    for name, choices in _CHOICES.items():
        if getattr(options, name) not in choices:
            raise ValueError(f"{name}={getattr(options, name)!r}: expected {' or '.join(map(repr, choices))}")
    for name in ("unit_cells", "top_k"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, it is {getattr(options, name)}")
    if (options.split_by == "tile") != (options.tile_side is not None):
        raise ValueError("split_by='tile' and tile_side, the side of a tile in the coordinates' unit, go together")
    if options.stratify is not None:
        _check_field(sources, options.stratify, "stratify by", "or use --stratify=''")
    if options.split_by not in _SPLIT_BY:
        _check_field(sources, options.split_by, "split by", f"or split by one of {', '.join(_SPLIT_BY)}")
    for condition in options.held_out:
        if not condition:
            raise ValueError("held_out has a condition without fields, which all cells would be of")
        check_fields(condition)
    for source in sources:
        _check_source(source, options)


def _check_field(sources: tuple[Source, ...], field: str, what: str, otherwise: str) -> None:
    check_fields([field])
    for source in sources:
        if field not in {*source.obs_columns, *source.constants, "organism"}:
            raise ValueError(
                f"{source.name}: cannot {what} {field!r}, no column was given for it "
                f"(name one with --label_column or --columns, {otherwise})"
            )


def _check_source(source: Source, options: BuildOptions) -> None:
    unknown = sorted(set(source.expression) - set(_EXPRESSION))
    if unknown:
        raise ValueError(f"{source.name}: expression has no option {unknown[0]!r}; there are {', '.join(_EXPRESSION)}")
    with naming(source):
        check_choices(source.expression.get("scale", "auto"), source.expression.get("target_sum"))
        check_empty_cells(source.expression.get("empty_cells", "error"))
    if options.split_by == "tile" and source.spatial_key is None:
        raise ValueError(f"{source.name}: cannot split by tiles without coordinates (spatial_key)")


def is_resumable(sources: tuple[Source, ...]) -> bool:
    """Whether the same command would read the same inputs: data in memory may be any."""
    return not any(isinstance(source.data, ad.AnnData) for source in sources)


def fingerprint(sources: tuple[Source, ...], options: BuildOptions) -> str:
    """Sixteen characters that differ where the cells of the corpus might."""
    if not is_resumable(sources):
        return uuid.uuid4().hex[:16]
    described = {
        "format": fmt.FORMAT_VERSION,
        "versions": versions(),
        "options": dataclasses.asdict(options),
        "sources": [_described(source) for source in sources],
    }
    return sha256(json.dumps(described, sort_keys=True, default=_plain).encode()).hexdigest()[:16]


def _described(source: Source) -> dict[str, Any]:
    kept = {f.name: getattr(source, f.name) for f in dataclasses.fields(source) if f.name != "data"}
    return kept | {"path": str(source.data), "files": _files(Path(str(source.data)))}


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of all files of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [(str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def _plain(value: Any) -> Any:
    """Whatever an option may be, as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def versions() -> dict[str, str]:
    """Versions of the packages on which the bytes of a corpus depend."""
    from c2s_jax import __version__

    found = {"c2s_jax": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
