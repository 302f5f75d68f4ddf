"""From the settings of a manifest's data sets to sources."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from c2s_jax.cells.aliases import AliasTable
from data_pipeline.manifest import texts
from data_pipeline.readers import SomaOptions, read_aliases
from data_pipeline.sources import Source

_EXPRESSION = ("layer", "use_raw", "gene_column", "scale", "target_sum", "duplicates", "empty_cells")
_SAME = (
    *("organism", "format", "genes_prefix", "unknown_genes", "control", "perturbation_separator", "caption_field"),
    *("constants", "pseudobulk"),
)
_TEXT_FILES = (".txt", ".md", ".json")


class Entries:
    """Makes sources from settings.

    Parameters
    ----------
    folder : Path
        Of relative paths.
    problems : list of str
        Gets what is wrong, each with its key.
    path_key : str
        What the key of paths is called.
    """

    def __init__(self, folder: Path, problems: list[str], path_key: str = "path") -> None:
        self.sources: list[Source] = []
        self._folder, self._problems, self._path_key = folder, problems, path_key
        self._places: dict[str, list[str]] = {}
        self._alias_tables: dict[str, AliasTable] = {}

    def add(self, settings: dict[str, Any], place: str) -> None:
        """Make the sources of one entry, one for each file that its path matches."""
        if not settings.get("path"):
            self._problems.append(f"{place}{self._path_key} is missing")
            return
        paths = self._matches(settings["path"], f"{place}{self._path_key}")
        made = self._made(settings, place)
        if made is None or not paths:
            return
        for name, path in zip(_names(paths, settings.get("name")), paths, strict=True):
            self.sources.append(replace(made, data=path, name=name))
            for taken in self.sources[-1].names:
                self._places.setdefault(taken, []).append(place)

    def check_names(self) -> None:
        """Report names that two data sets have."""
        for name, places in self._places.items():
            if len(places) > 1:
                where = ", ".join(dict.fromkeys(place.rstrip(".") for place in places))
                self._problems.append(
                    f"{where}: {len(places)} data sets are named {name!r}; give each a name of its own"
                )

    def _matches(self, patterns: list[str], place: str) -> list[str]:
        found: list[str] = []
        for pattern in patterns:
            if "://" in pattern:
                found.append(pattern)
                continue
            full = str(self._folder / pattern)
            matches = [full] if os.path.exists(full) else sorted(glob.glob(full, recursive=True))
            if not matches:
                self._problems.append(f"{place}: nothing matches {pattern!r}")
            found += matches
        return list(dict.fromkeys(found))

    def _made(self, settings: dict[str, Any], place: str) -> Source | None:
        """The source but for its path and name; None if anything in it is wrong."""
        before = len(self._problems)
        told: dict[str, Any] = {}
        for key in ("aliases", "abstracts", "captions", "questions", "soma"):
            with self._noting(place + key):
                told[key] = getattr(self, f"_{key}")(settings)
        if len(self._problems) > before:
            return None
        spatial, qc = settings.get("spatial", {}), settings.get("qc", {})
        try:
            return Source(
                "",
                settings.get("name", place.rstrip(".")),
                obs_columns=settings.get("columns", {}),
                expression={"empty_cells": "drop"} | {name: settings[name] for name in _EXPRESSION if name in settings},
                spatial_key=spatial.get("key"),
                radius=spatial.get("radius"),
                spatial_unit=spatial.get("unit", ""),
                section=spatial.get("section"),
                min_genes=qc.get("min_genes", 0),
                min_cells=qc.get("min_cells", 0),
                **{name: settings[name] for name in _SAME if name in settings},
                **told,
            )
        except ValueError as error:
            self._problems.append(f"{place.rstrip('.')}: {error}")
            return None

    @contextmanager
    def _noting(self, place: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self._problems.append(f"{place.rstrip('.')}: {error}")

    def _aliases(self, settings: Mapping[str, Any]) -> AliasTable:
        name = settings.get("aliases")
        if name is None:
            return AliasTable()
        if name not in self._alias_tables:
            self._alias_tables[name] = read_aliases(self._folder / name)
        return self._alias_tables[name]

    def _abstracts(self, settings: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        for given in [*settings.get("abstract", []), *settings.get("abstracts", [])]:
            is_file = "\n" not in given and given.endswith(_TEXT_FILES)
            found += texts.read_abstracts(self._folder / given) if is_file else [given]
        return found

    def _captions(self, settings: Mapping[str, Any]) -> dict[str, list[str]]:
        given = settings.get("captions", {})
        if isinstance(given, str):
            return texts.read_captions(self._folder / given)
        return texts.captions_of(given, "the mapping") if given else {}

    def _questions(self, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        given = settings.get("questions", [])
        if isinstance(given, str):
            return texts.read_questions(self._folder / given)
        return texts.questions_of([(f"entry {i}", entry) for i, entry in enumerate(given)], "the list") if given else []

    def _soma(self, settings: Mapping[str, Any]) -> SomaOptions | None:
        return SomaOptions(**settings["soma"]) if "soma" in settings else None


def _names(paths: Sequence[str], name: str | None) -> list[str]:
    """A name for each file: of the file, of its folders too where that does not tell them apart; after `name`."""
    if name is not None and len(paths) == 1:
        return [name]
    parts = [Path(path).with_suffix("").parts for path in paths]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["_".join([*([name] if name else []), *(p.strip("/") for p in part[-depth:])]) for part in parts]
