"""Templates cut into pieces whose tokens do not depend on each other.

No token of a supported tokenizer holds the end of a word and white space after it, so the word around a field is
tokenised with its value and apart from the rest of the text: each value is tokenised once, not once an example.
"""

import dataclasses
import re
from collections.abc import Iterator
from functools import lru_cache

from c2s_jax.tasks import Template
from c2s_jax.tasks.rendering import SERIES, CellSlots, Field, GeneSlot, Part, cell_header, parts

_FIELD = "\0"  # stands for a field while its surroundings are cut
_CUT = re.compile("(?<=[^\\s\u2581])(?=[\\s\u2581])")  # after a word; U+2581 is a space to SentencePiece


@dataclasses.dataclass(frozen=True)
class Words:
    """Text that is the same in every example; ``before_genes`` where a gene list follows without a space."""

    text: str
    before_genes: bool = False


@dataclasses.dataclass(frozen=True)
class Phrase:
    """Text with one field or more."""

    parts: tuple[str | Field, ...]
    before_genes: bool = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields, in order."""
        return tuple(part for part in self.parts if isinstance(part, Field))

    def text(self, values: tuple[str, ...]) -> str:
        """The text with these values."""
        given = iter(values)
        return "".join(part if isinstance(part, str) else part.text(next(given)) for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Series:
    """A field that names several things, with the words that touch it."""

    before: str
    field: Field
    after: str
    before_genes: bool = False

    def text(self, value: str, first: bool, last: bool) -> str:
        """One of the things as it is written in its place."""
        separator = SERIES[self.field.name]
        before = self.before if first else separator[-1]
        after = self.after if last else separator[:-1]
        return before + dataclasses.replace(self.field, closed=last and self.field.closed).text(value) + after


Piece = Words | Phrase | Series | GeneSlot | CellSlots


@lru_cache(maxsize=4096)
def pieces(template: Template) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Prompt and response of a template in pieces.

    Raises
    ------
    ValueError
        If a field of several things touches another field.
    """
    prompt, response = (tuple(_cut(side, template)) for side in parts(template))
    return prompt, response


def _cut(side: tuple[Part, ...], template: Template) -> Iterator[Piece]:
    run: list[str | Field] = []
    for part in side:
        if isinstance(part, str | Field):
            run.append(part)
        elif isinstance(part, GeneSlot):
            yield from _run(run, part.leading == "bare", template)
            yield part
            run = []
        else:
            yield from _run([*run, cell_header(0)], True, template)
            yield part
            run = [part.closing]
    yield from _run(run, False, template)


def _run(run: list[str | Field], before_genes: bool, template: Template) -> Iterator[Piece]:
    """Pieces of the text between two gene lists."""
    fields = iter([part for part in run if isinstance(part, Field)])
    text = "".join(part if isinstance(part, str) else _FIELD for part in run)
    chunks: list[str] = []
    for chunk in _CUT.split(text):
        if chunks and _FIELD not in chunk + chunks[-1]:
            chunks[-1] += chunk
        else:
            chunks.append(chunk)
    for number, chunk in enumerate(chunks):
        last = before_genes and number == len(chunks) - 1
        found = tuple(part if part != _FIELD else next(fields) for part in re.split(f"({_FIELD})", chunk) if part)
        if any(isinstance(part, Field) for part in found):
            yield _phrase(found, last, template)
        elif chunk:
            yield Words(chunk, last)


def _phrase(found: tuple[str | Field, ...], before_genes: bool, template: Template) -> Phrase | Series:
    series = [part for part in found if isinstance(part, Field) and part.name in SERIES]
    if not series:
        return Phrase(found, before_genes)
    if sum(isinstance(part, Field) for part in found) > 1:
        raise ValueError(f"{template}: put a space between {{{series[0].name}}} and the next field")
    place = found.index(series[0])
    before, after = "".join(map(str, found[:place])), "".join(map(str, found[place + 1 :]))
    return Series(before, series[0], after, before_genes)
