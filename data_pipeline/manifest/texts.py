"""Texts about data sets from files: abstracts, captions, questions with answers."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TextFileError(ValueError):
    """A file of texts that cannot be used; the message names it and the place in it."""


def read_abstracts(path: Path) -> list[str]:
    """Texts about a data set: a JSON list, or the whole of a text file as one."""
    if path.suffix != ".json":
        return [_text(_content(path), path, "it")]
    found = _json(_content(path), path, "")
    if not isinstance(found, list) or not found:
        raise TextFileError(f"{path}: expected a list of texts, it holds {type(found).__name__}")
    return [_text(text, path, f"entry {i}") for i, text in enumerate(found)]


def read_captions(path: Path) -> dict[str, list[str]]:
    """Texts about the cells of each value.

    A JSON object of lists, lines of value, tab, text, or JSON lines with the keys ``cluster`` and ``caption``.
    """
    if path.suffix == ".json":
        return captions_of(_json(_content(path), path, ""), path)
    captions: dict[str, list[str]] = {}
    for number, row in _json_captions(path) if path.suffix == ".jsonl" else _rows(path, "\t"):
        if len(row) != 2:
            raise TextFileError(
                f"{path}, line {number}: expected a value, a tab and a text, there are {len(row)} columns"
            )
        value = _text(row[0], path, f"the value in line {number}")
        captions.setdefault(value, []).append(_text(row[1], path, f"line {number}"))
    if not captions:
        raise TextFileError(f"{path} is empty")
    return captions


def _json_captions(path: Path) -> list[tuple[int, list[Any]]]:
    out = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        entry = _json(line, path, f", line {number}")
        if not isinstance(entry, Mapping) or not {"cluster", "caption"} <= set(entry):
            raise TextFileError(f"{path}, line {number}: expected 'cluster' and 'caption', it is {str(entry)[:60]!r}")
        out.append((number, [entry["cluster"], entry["caption"]]))
    return out


def captions_of(given: Any, where: Any) -> dict[str, list[str]]:
    """Texts of each value, from a mapping of values to a text or texts."""
    if not isinstance(given, Mapping) or not given:
        raise TextFileError(f"{where}: expected texts by value, it holds {type(given).__name__}")
    listed = {str(key): [texts] if isinstance(texts, str) else texts for key, texts in given.items()}
    for value, texts in listed.items():
        if not isinstance(texts, Sequence) or not texts:
            raise TextFileError(f"{where}: {value!r} has no text")
    return {value: [_text(text, where, f"a text of {value!r}") for text in texts] for value, texts in listed.items()}


def read_questions(path: Path) -> list[tuple[str, str]]:
    """Questions and answers: lines of JSON objects, or a table with a head, with ``question`` and ``answer``."""
    if path.suffix in (".jsonl", ".json"):
        lines = _lines(path) if path.suffix == ".jsonl" else []
        numbered = [(f"line {n}", _json(line, path, f", line {n}")) for n, line in enumerate(lines, 1) if line.strip()]
        if path.suffix == ".json":
            found = _json(_content(path), path, "")
            numbered = [(f"entry {i}", entry) for i, entry in enumerate(found if isinstance(found, list) else [found])]
        return questions_of(numbered, path)
    (_, head), *rows = _rows(path, "\t" if path.suffix == ".tsv" else ",") or [(1, [])]
    names = [name.strip().lower() for name in head]
    entries = [(f"line {n}", dict(zip(names, row, strict=False))) for n, row in rows]
    if not {"question", "answer"} <= set(names):
        raise TextFileError(f"{path}: expected columns question and answer in the first line, it has {head}")
    return questions_of(entries, path)


def questions_of(entries: Sequence[tuple[str, Any]], where: Any) -> list[tuple[str, str]]:
    """Pairs from named mappings with ``question`` and ``answer``."""
    pairs = []
    for name, entry in entries:
        if not isinstance(entry, Mapping) or not {"question", "answer"} <= set(entry):
            raise TextFileError(f"{where}, {name}: expected 'question' and 'answer', it is {str(entry)[:60]!r}")
        question, answer = (_text(entry[part], where, f"{part} of {name}") for part in ("question", "answer"))
        pairs.append((question, answer))
    if not pairs:
        raise TextFileError(f"{where} holds no question")
    return pairs


def _rows(path: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, with the number of their line."""
    # in a table with tabs a quotation mark is one
    reader = csv.reader(
        _lines(path), delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    )
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise TextFileError(f"{path}, line {reader.line_num}: {error}") from error


def _lines(path: Path) -> list[str]:
    """With their ends; texts may hold U+2028, U+0085 and others at which ``str.splitlines`` cuts."""
    return list(io.StringIO(_content(path)))


def _content(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextFileError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _json(text: str, path: Path, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TextFileError(f"{path}{where} is no JSON: {error}") from error


def _text(value: Any, where: Any, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise TextFileError(f"{where}: {what} is no text: {value!r}")
    return str(value).strip()
