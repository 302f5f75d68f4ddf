"""A template's two texts in parts: words, text fields and places for gene lists."""

import dataclasses
import string
from collections.abc import Mapping
from functools import lru_cache

MULTI_CELL = "multi_cell_sentences"
GENE_LISTS = ("cell_sentence", "other_cell_sentence", "bulk_sentence", "gene_set")
SERIES = {"cell_types": ", ", "interactions": " "}
"""Fields that name several things, and what stands between them."""

PROSE = frozenset(("abstract", "caption", "question", "answer", "interactions"))
"""Fields whose values may end with a period of their own; that of a template then gives way."""

TEXT_FIELDS = frozenset(
    "num_genes num_cells organism cell_type cell_types tissue disease donor sex age perturbation dose time assay batch "
    "niche abstract caption question answer gene_set_name interactions".split()
)
FIELDS = TEXT_FIELDS | {*GENE_LISTS, MULTI_CELL}


@dataclasses.dataclass(frozen=True)
class Template:
    """One phrasing of one task: what is asked and how it is answered.

    ``released`` marks those of the cell2sentence package, where a line break follows the last of several cells.
    """

    task: str
    model_input: str
    response: str
    released: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """Placeholders used."""
        return frozenset(placeholders(self.model_input) + placeholders(self.response))


@dataclasses.dataclass(frozen=True)
class Field:
    """Place of a text; ``closed`` where a period follows it directly."""

    name: str
    closed: bool = False

    def text(self, value: str) -> str:
        """The value as it is written here: white space around it would merge with the template's."""
        value = value.strip()
        return value.removesuffix(".") if self.closed and self.name in PROSE else value


@dataclasses.dataclass(frozen=True)
class GeneSlot:
    """Place of a gene list in a text.

    ``leading`` says whether the first gene follows a space; ``trailing`` whether a period follows the last one
    directly. Both change how the neighbouring characters are cut into tokens. ``name`` is the field, ``cell`` the
    number of the cell in ``multi_cell_sentences``.
    """

    leading: str
    trailing: str
    cell: int = 0
    name: str = "cell_sentence"


@dataclasses.dataclass(frozen=True)
class CellSlots:
    """Place of several cells: "Cell 1:", a line break, its genes and a period, then the next on a new line.

    ``closing`` is what follows the last cell's period as part of the field.
    """

    closing: str = ""


Part = str | Field | GeneSlot | CellSlots
Segment = str | GeneSlot


def cell_header(cell: int) -> str:
    """What stands before the genes of cell ``cell``, from 0."""
    return f"Cell {cell + 1}:\n" if cell == 0 else f"\nCell {cell + 1}:\n"


@lru_cache(maxsize=4096)
def parts(template: Template) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Prompt and response of a template in parts; the space between the two belongs to the response.

    Raises
    ------
    ValueError
        If a gene list touches something else than a space, a line break or a period.
    """
    texts = template.model_input, f" {template.response}"
    prompt, response = (_parse(text, "\n" if template.released else "") for text in texts)
    return prompt, response


def render(
    template: Template, values: Mapping[str, str], cells: int = 1
) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Fill a template's fields, leaving gene lists as slots.

    Parameters
    ----------
    template
        What to fill.
    values
        Text by field.
    cells
        How many cells stand for ``{multi_cell_sentences}``.

    Returns
    -------
    Segments of the prompt and of the response. Joined, with genes in their slots, they are the example's text:
    prompt, one space, response. The space belongs to the response.
    """
    prompt, response = (_joined(_filled(side, values, cells)) for side in parts(template))
    return prompt, response


def placeholders(text: str) -> list[str]:
    """Names of the fields of a text, in order."""
    return [field for _, field, *_ in string.Formatter().parse(text) if field is not None]


def _filled(side: tuple[Part, ...], values: Mapping[str, str], cells: int) -> list[Segment]:
    out: list[Segment] = []
    for part in side:
        if isinstance(part, Field):
            if part.name not in values:
                raise ValueError(f"field {{{part.name}}} has no value here")
            out.append(part.text(values[part.name]))
        elif isinstance(part, CellSlots):
            for cell in range(cells):
                out += [cell_header(cell), GeneSlot("bare", "period", cell, MULTI_CELL)]
            out.append(part.closing)
        else:
            out.append(part)
    return out


def _joined(segments: list[Segment]) -> tuple[Segment, ...]:
    """Neighbouring texts as one; empty ones only stay before a gene list."""
    out: list[Segment] = [""]
    for segment in segments:
        last = out[-1]
        if isinstance(segment, str) and isinstance(last, str):
            out[-1] = last + segment
        else:
            out.append(segment)
    return tuple(out if out[-1] else out[:-1])


def _parse(text: str, closing: str) -> tuple[Part, ...]:
    out: list[Part] = []
    for literal, field, *_ in string.Formatter().parse(text):
        literal = _after(out, literal, field)
        if field in GENE_LISTS:
            out += [literal.removesuffix(" "), GeneSlot(_leading(literal, out, field), "plain", name=field)]
        elif field == MULTI_CELL:
            _leading(literal, out, field)
            out += [literal, CellSlots(closing)]
        elif field is not None:
            out += [literal, Field(field)]
        else:
            out.append(literal)
    return tuple(part for part in out if part != "")


def _leading(before: str, out: list[Part], field: str) -> str:
    """How the text before a gene list ends."""
    if before.endswith("  "):
        raise ValueError(f"{{{field}}} follows more than one space")
    if before.endswith(" "):
        return "space"
    if before.endswith("\n") or not (before or out):
        return "bare"
    raise ValueError(f"{{{field}}} must start the text or follow a space or a line break")


def _after(out: list[Part], literal: str, field: str | None) -> str:
    """What is left of the text after a part, once a period that touches the part is given to it."""
    last = out[-1] if out else ""
    if isinstance(last, Field):
        out[-1] = dataclasses.replace(last, closed=literal.startswith("."))
    if not isinstance(last, GeneSlot | CellSlots):
        return literal
    name = last.name if isinstance(last, GeneSlot) else MULTI_CELL
    if isinstance(last, CellSlots) and last.closing:
        return literal
    if literal.startswith("."):
        literal = literal[1:]
        if isinstance(last, GeneSlot):
            out[-1] = dataclasses.replace(last, trailing="period")
    after = literal[:1] or (f"{{{field}}}" if field is not None else "\n")
    if after not in " \n":
        raise ValueError(f"{{{name}}} is followed by {after!r}; use a space, a line break or a period")
    return literal
