"""Many data sets and their settings in one file.

::

    defaults:
      organism: human
      columns: {cell_type: cell_type, donor: donor_id}
    datasets:
      - path: lung/*.h5ad
        constants: {tissue: lung}
    split: 80/10/10

See docs/data.md for all keys. Paths are relative to the manifest; ``${NAME}`` is a variable of the environment.
"""

import os
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_pipeline.knowledge_files import read_gene_sets, read_interactions
from data_pipeline.manifest.entries import Entries
from data_pipeline.manifest.keys import BUILD, DATASET, checked, mapping, merged
from data_pipeline.sources import Source


class ManifestError(ValueError):
    """A manifest that cannot be used; the message has every problem in it, one a line."""


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes
    ----------
    sources : list of Source
    options : dict
        Keyword arguments of `data_pipeline.build.build_corpus`.
    problems : list of str
        What is wrong with it, with the place. Sources that cannot be made are not among `sources`.
    """

    sources: list[Source]
    options: dict[str, Any]
    problems: list[str]


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest that has no problems.

    Parameters
    ----------
    path
        YAML, or a Python file with a function ``get_config`` that returns the same as an
        `ml_collections.ConfigDict`.

    Raises
    ------
    FileNotFoundError
        If there is no manifest.
    ManifestError
        If anything in it is wrong.
    """
    manifest = read_manifest(path)
    if manifest.problems:
        raise ManifestError("\n".join(manifest.problems))
    return manifest


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest as far as it can be read; `Manifest.problems` has the rest."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"manifest not found: {path}")
    given = _content(path)
    entries = given.pop("datasets", None)
    settings = given.pop("defaults", None) or {}
    folder = path.absolute().parent
    options, problems = build_options(given, folder)
    defaults = checked(settings, DATASET, "defaults.", problems)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        problems.append("datasets: expected a list of data sets, each with at least a path")
        entries = []
    maker = Entries(folder, problems)
    for number, entry in enumerate(entries):
        found = len(problems)
        entry = merged(defaults, checked(entry, DATASET, f"datasets[{number}].", problems))
        if len(problems) == found:
            maker.add(entry, f"datasets[{number}].")
    maker.check_names()
    return Manifest(maker.sources, options, [f"{path}: {problem}" for problem in problems])


def _content(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".py":
            given = runpy.run_path(str(path))["get_config"]()
            given = given.to_dict() if hasattr(given, "to_dict") else given
        else:
            given = yaml.load(path.read_text("utf-8"), Loader=_Texts)
    except KeyError as error:
        raise ManifestError(f"{path} has no function get_config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is no YAML: {error}") from error
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from None
    if not isinstance(given, Mapping):
        raise ManifestError(f"{path}: expected keys such as datasets, it holds {type(given).__name__}")
    return mapping(given)


class _Texts(yaml.BaseLoader):
    """YAML in which every value is text: a donor 01, a time 24:00 and an answer no stay what they are."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] not in os.environ:
                raise ManifestError(
                    f"{node.value!r} (line {node.start_mark.line + 1}): the environment has no variable {found[1]}"
                )
            return os.environ[found[1]]

        return re.sub(r"\$\{(\w+)\}", value, super().construct_scalar(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def make_sources(
    settings: Mapping[str, Any], folder: Path, where: str, path_key: str = "path"
) -> tuple[list[Source], list[str]]:
    """Sources of one entry, and what is wrong with it.

    Parameters
    ----------
    settings
        As under ``datasets`` in a manifest.
    folder
        Of relative paths.
    where
        What the names of keys are written after in messages.
    path_key
        What the key ``path`` is called in them.
    """
    problems: list[str] = []
    given = merged({}, checked(settings, DATASET, where, problems))
    maker = Entries(folder, problems, path_key)
    if not problems:
        maker.add(given, where)
        maker.check_names()
    return maker.sources, problems


def build_options(given: Mapping[str, Any], folder: Path, where: str = "") -> tuple[dict[str, Any], list[str]]:
    """Keyword arguments of `data_pipeline.build.build_corpus`, and what is wrong with the settings.

    Parameters are those of `make_sources`.
    """
    problems = [f"{where}{name} belongs to a data set, or under defaults" for name in given if _astray(name)]
    found = checked({name: given[name] for name in given if not _astray(name)}, BUILD, where, problems)
    options = {name: value for name, value in found.items() if value is not None or name == "stratify"}
    files = {name: [str(folder / path) for path in options.pop(name, [])] for name in ("gene_sets", "interactions")}
    outside = options.pop("extracellular", None)
    if outside is not None and not files["interactions"]:
        problems.append(f"{where}extracellular: there are no interactions that it could choose from")
    kept = None if outside is None else str(folder / outside)
    readers: dict[str, Callable[[list[str]], list[Any]]] = {
        "gene_sets": read_gene_sets,
        "interactions": lambda paths: read_interactions(paths, kept),
    }
    for name, paths in files.items():
        if paths:
            try:
                options[name] = readers[name](paths)
            except (OSError, ValueError) as error:
                problems.append(f"{where}{name}: {error}")
    return options, problems


def _astray(name: str) -> bool:
    return name in DATASET.keys and name not in BUILD.keys
