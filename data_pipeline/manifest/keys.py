"""What may stand in a manifest: every key, the type of its value, and what to say of others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from c2s_jax.cells.scales import SCALES
from c2s_jax.data import corpus_format as fmt
from data_pipeline.readers import FORMATS


class WrongValueError(ValueError):
    """A value of the wrong type; the message says what was expected."""


Kind = Callable[[Any], Any]


def text(value: Any) -> str:
    """A text; a number of a Python file becomes one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise WrongValueError(f"expected text, it is {_shown(value)}")
    return str(value).strip()


def integer(value: Any) -> int:
    """A whole number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip().isdecimal():
        raise WrongValueError(f"expected a whole number of 0 or more, it is {_shown(value)}")
    return int(value)


def number(value: Any) -> float:
    """A positive number."""
    try:
        found = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = 0.0
    if not 0 < found < float("inf"):
        raise WrongValueError(f"expected a positive number, it is {_shown(value)}")
    return found


def boolean(value: Any) -> bool:
    """True or false."""
    words = {"true": True, "yes": True, "false": False, "no": False}
    if str(value).lower() not in words:
        raise WrongValueError(f"expected true or false, it is {_shown(value)}")
    return words[str(value).lower()]


def one_of(*choices: str) -> Kind:
    """One of some words."""

    def kind(value: Any) -> str:
        if value not in choices:
            near = get_close_matches(str(value), choices, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise WrongValueError(f"expected one of {', '.join(choices)}, it is {_shown(value)}{hint}")
        return str(value)

    return kind


def texts(value: Any) -> list[str]:
    """A text, or a list of texts."""
    return [text(entry) for entry in value] if _is_list(value) else [text(value)]


def mapping(value: Any) -> dict[str, Any]:
    """Anything by name."""
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected keys with values, it is {_shown(value)}")
    return {str(key): entry for key, entry in value.items()}


def text_or_texts_by_value(value: Any) -> Any:
    """A text (a file), or a mapping."""
    return mapping(value) if isinstance(value, Mapping) else text(value)


def text_or_list(value: Any) -> Any:
    """A text (a file), or a list."""
    return list(value) if _is_list(value) else text(value)


def shares(value: Any) -> tuple[float, ...]:
    """Shares of the splits, as "80/10/10" or a list of numbers."""
    parts = value.split("/") if isinstance(value, str) else list(value) if _is_list(value) else []
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != len(fmt.SPLITS) or min(numbers) < 0 or not 0 < sum(numbers) < float("inf"):
        raise WrongValueError(f"expected {'/'.join(fmt.SPLITS)}, for instance 70/10/20, it is {_shown(value)}")
    return tuple(part / sum(numbers) for part in numbers)


def conditions(value: Any) -> tuple[dict[str, list[str]], ...]:
    """A list of conditions, each values by field of a corpus."""
    if not _is_list(value):
        raise WrongValueError(f"expected a list of conditions, it is {_shown(value)}")
    found = []
    for entry in value:
        fields = mapping(entry)
        for name in fields:
            one_of(*fmt.FIELDS)(name)
        found.append({name: texts(values) for name, values in fields.items()})
    return tuple(found)


@dataclass(frozen=True)
class Section:
    """A mapping of known keys, or of the fields of a corpus (`fields`)."""

    keys: Mapping[str, "Kind | Section"] = field(default_factory=dict)
    fields: bool = False

    def kind(self, key: str) -> "Kind | Section | None":
        if self.fields:
            return text if key in fmt.FIELDS else None
        return self.keys.get(key)

    @property
    def names(self) -> Sequence[str]:
        return fmt.FIELDS if self.fields else tuple(self.keys)


DATASET = Section(
    {
        "path": texts,
        "name": text,
        "format": one_of(*FORMATS),
        "organism": text,
        "columns": Section(fields=True),
        "constants": Section(fields=True),
        "layer": text,
        "use_raw": boolean,
        "scale": one_of(*SCALES),
        "target_sum": number,
        "duplicates": one_of("error", "sum"),
        "empty_cells": one_of("error", "keep", "drop"),
        "gene_column": text,
        "genes_prefix": text,
        "aliases": text,
        "unknown_genes": one_of("keep", "drop"),
        "qc": Section({"min_genes": integer, "min_cells": integer}),
        "spatial": Section({"key": text, "radius": number, "unit": text, "section": text}),
        "control": text,
        "perturbation_separator": text,
        "abstract": texts,
        "abstracts": texts,
        "captions": text_or_texts_by_value,
        "caption_field": one_of(*fmt.FIELDS),
        "questions": text_or_list,
        "pseudobulk": texts,
        "soma": Section(
            {
                "measurement": text,
                "obs_filter": text,
                "var_filter": text,
                "columns": texts,
                "experiment": text,
                "config": mapping,
            }
        ),
    }
)
"""Keys of a data set, and of ``defaults``."""

BUILD = Section(
    {
        "split": shares,
        "split_by": text,
        "tile_side": number,
        "held_out": conditions,
        "stratify": text,
        "seed": integer,
        "top_k": integer,
        "ties": one_of("hash", "cell2sentence"),
        "duplicates_cells": one_of("report", "drop", "error"),
        "gene_sets": texts,
        "interactions": texts,
        "extracellular": text,
    }
)
"""Keys of the whole build."""


def checked(given: Any, section: Section, where: str, problems: list[str]) -> dict[str, Any]:
    """The values of a section, those that are right, None for an empty one.

    What is wrong goes into `problems`, each with its key after `where`.
    """
    if not isinstance(given, Mapping):
        problems.append(f"{where.rstrip('.')}: expected keys with values, it is {_shown(given)}")
        return {}
    found: dict[str, Any] = {}
    for name, value in given.items():
        place, kind = f"{where}{name}", section.kind(str(name))
        if kind is None:
            problems.append(f"{place} is unknown{_nearest(str(name), section)}")
        elif value is None or value == "":
            found[str(name)] = None
        elif isinstance(kind, Section):
            found[str(name)] = checked(value, kind, f"{place}.", problems)
        else:
            try:
                found[str(name)] = kind(value)
            except WrongValueError as error:
                problems.append(f"{place}: {error}")
    return found


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any], section: Section = DATASET) -> dict[str, Any]:
    """`given` over `defaults`, section by section; None takes a default back."""
    result = dict(defaults)
    for name, value in given.items():
        kind, inner = section.kind(name), result.get(name)
        deeper = isinstance(kind, Section) and value is not None
        result[name] = merged(inner or {}, value, kind) if deeper else value  # type: ignore[arg-type]
    return {name: value for name, value in result.items() if value is not None}


def _nearest(name: str, section: Section) -> str:
    places = {key: key for key in section.names}
    for key, kind in section.keys.items():
        if isinstance(kind, Section) and not kind.fields:
            places = {inner: f"{key}.{inner}" for inner in kind.names} | places
    near = get_close_matches(name.lower(), places, n=1)
    return f"; did you mean {places[near[0]]!r}?" if near else f"; known are {', '.join(section.names)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _shown(value: Any) -> str:
    listed = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
    return f"{listed!r} ({type(value).__name__})"
