"""What is to be written: one example as a `Request`, many as a `Draft`."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.ragged import offsets
from c2s_jax.data.texts import Texts
from c2s_jax.tasks import Template
from c2s_jax.tasks.rendering import GENE_LISTS, MULTI_CELL, SERIES


@dataclasses.dataclass(frozen=True)
class Request:
    """One example to write: a template and its text fields; the gene lists come beside it.

    ``cells`` is how many of them stand for ``{multi_cell_sentences}``.
    """

    template: Template
    values: tuple[tuple[str, str | tuple[str, ...]], ...]
    cells: int = 1


@dataclasses.dataclass(frozen=True)
class Draft:
    """N examples without their genes.

    Attributes
    ----------
    templates
        Those that the examples use.
    template
        Number of each example's template, int64 [N].
    texts
        Text fields of the examples.
    indptr
        Gene lists of example i are ``indptr[i]:indptr[i + 1]``, int64 [N + 1]. ``cell_sentence`` is the first,
        ``other_cell_sentence`` the second, ``bulk_sentence`` and ``gene_set`` the last.
    cells
        How many lists of each example, from its first, stand for ``multi_cell_sentences``, int64 [N].
    """

    templates: Sequence[Template]
    template: NDArray[np.int64]
    texts: Mapping[str, Texts]
    indptr: NDArray[np.int64]
    cells: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.template)

    def replace_texts(self, **texts: Texts) -> "Draft":
        """The same with other texts in some fields."""
        return dataclasses.replace(self, texts={**self.texts, **texts})

    def select(self, rows: NDArray) -> "Draft":
        """Some of the examples, with the gene lists of each after those of the one before."""
        texts = {name: field.select(rows) for name, field in self.texts.items()}
        indptr = offsets(np.diff(self.indptr)[rows])
        return dataclasses.replace(
            self, template=self.template[rows], texts=texts, indptr=indptr, cells=self.cells[rows]
        )


def request(
    template: Template, fields: Mapping[str, str | Sequence[str]], num_genes: int, num_cells: int = 1
) -> Request:
    """A request that carries only the fields its template uses.

    Parameters
    ----------
    template
        How it is phrased.
    fields
        Text by field; a sequence of texts for ``cell_types`` and ``interactions``. White space around a value is left
        out: it would merge with that of the template.
    num_genes, num_cells
        What the prompt says about the gene lists.

    Raises
    ------
    ValueError
        If a field has no value; names it.
    """
    values = {name: _clean(name, value) for name, value in fields.items()}
    values |= {"num_genes": str(num_genes), "num_cells": str(num_cells)}
    used = template.fields - {*GENE_LISTS, MULTI_CELL}
    if missing := sorted(f for f in used if not values.get(f)):
        raise ValueError(f"template {template.model_input!r} needs {', '.join(missing)}, which this cell lacks")
    return Request(template, tuple(sorted((f, values[f]) for f in used)), num_cells)


def draft_of(requests: Sequence[Request], indptr: NDArray[np.int64], lists: NDArray | None) -> Draft:
    """Requests as a draft; ``lists`` is the number of gene lists of each, of those that ``indptr`` bounds."""
    counts = np.ones(len(requests), np.int64) if lists is None else np.asarray(lists, np.int64)
    if len(counts) != len(requests) or counts.sum() != len(indptr) - 1:
        raise ValueError(
            f"{len(requests)} requests have {counts.sum()} gene lists together, but {len(indptr) - 1} are given"
        )
    number: dict[Template, int] = {}
    template = [number.setdefault(r.template, len(number)) for r in requests]
    values = [dict(r.values) for r in requests]
    texts = {}
    for name in sorted({name for v in values for name in v}):
        column = [v.get(name, ()) for v in values]
        texts[name] = Texts.of_series(column) if name in SERIES else Texts.of([str(v or "") for v in column])
    cells = np.array([r.cells for r in requests], np.int64)
    return Draft(tuple(number), np.array(template, np.int64), texts, offsets(counts), cells)


def _clean(name: str, value: str | Sequence[str]) -> str | tuple[str, ...]:
    if name in SERIES:
        return (value.strip(),) if isinstance(value, str) else tuple(item.strip() for item in value)
    if not isinstance(value, str):
        raise ValueError(f"field {name} takes one text, not {value!r}")
    return value.strip()
