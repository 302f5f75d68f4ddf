"""Answers out of generated text. Every parser takes what a model wrote after a prompt and never fails on it."""

import re
import string
from collections.abc import Collection, Iterable

_HEADER = re.compile(r"(?:^|\s)Cell (\d+):\s*")
SEPARATOR = ", "


def parse_label(answer: str) -> str:
    """A label: first line, without the closing period and surrounding space."""
    return answer.strip().split("\n")[0].strip().removesuffix(".").strip()


def parse_sentence(answer: str) -> str:
    """The words of a generated cell sentence; unknown or repeated genes are left for ``cells.repair_sentence``."""
    return parse_label(answer)


def parse_sentences(answer: str) -> list[str]:
    """The sentences of several cells, in the order of their numbers in the text.

    Text before the first "Cell N:" is a cell of its own, so that one sentence without a number is found too; a cell
    without genes is "".
    """
    before, *rest = _HEADER.split(answer.strip())
    bodies = [before] * bool(before.strip()) + rest[1::2]
    return [parse_label(body) for body in bodies]


def parse_text(answer: str) -> str:
    """A text of any length, without the closing period and surrounding space."""
    return answer.strip().removesuffix(".").strip()


def parse_yes_no(answer: str) -> str:
    """ "Yes" or "No" where the answer begins with that word, else ""."""
    found = re.match(r"\W*(yes|no)\b", answer, re.IGNORECASE)
    return found.group(1).capitalize() if found else ""


def parse_labels(answer: str, known: Collection[str] = ()) -> list[str]:
    """Labels separated by commas; labels in ``known`` may hold commas themselves (the longest that fits is taken)."""
    parts = parse_label(answer).split(SEPARATOR)
    longest = max((label.count(SEPARATOR) for label in known), default=0) + 1
    labels, start = [], 0
    while start < len(parts):
        spans = (SEPARATOR.join(parts[start : start + n]) for n in range(longest, 1, -1) if start + n <= len(parts))
        label = next((span for span in spans if span in known), parts[start])
        labels.append(label)
        start += label.count(SEPARATOR) + 1
    return [label.strip() for label in labels if label.strip()]


def parse_fields(answer: str, responses: Iterable[str]) -> dict[str, str]:
    """The fields of a joint answer, read back through the templates it may have been written with.

    Parameters
    ----------
    answer
        What the model wrote.
    responses
        Response templates, e.g. ``"Cell type: {cell_type}. Perturbation: {perturbation}."``; of those that fit the
        answer, the one with most fields counts.

    Returns
    -------
    Value by field; empty where no template fits.
    """
    found: dict[str, str] = {}
    for response in responses:
        match = re.fullmatch(_pattern(response), answer.strip().removesuffix(".").strip(), re.DOTALL)
        if match and len(match.groupdict()) > len(found):
            found = {name: value.strip() for name, value in match.groupdict().items()}
    return found


def _pattern(response: str) -> str:
    pieces = []
    for literal, field, *_ in string.Formatter().parse(response.removesuffix(".")):
        pieces.append(r"\s+".join(map(re.escape, re.split(r"\s+", literal))))
        if field is not None:
            pieces.append(f"(?P<{field}>.+?)")
    return "".join(pieces)
