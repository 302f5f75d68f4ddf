"""From cells and fields to prompts as tokens, cut to what a model can read."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.cells.errors import CellDataError
from c2s_jax.data import Formatter
from c2s_jax.data.fitting import cut_prompts
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.data.requests import Draft
from c2s_jax.data.texts import Texts, numbers
from c2s_jax.tasks import Template, load_templates
from c2s_jax.tasks.rendering import GENE_LISTS, MULTI_CELL, TEXT_FIELDS

COUNTED = frozenset(("num_genes", "num_cells", *GENE_LISTS, MULTI_CELL))
TOLD = TEXT_FIELDS - COUNTED  # those that are given
Fields = Mapping[str, Texts]


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts of N examples as tokens.

    Attributes
    ----------
    tokens
        int32, one array an example, the beginning-of-sequence token included.
    cut
        bool [N], whether genes were left out to make it fit.
    genes
        int64 [N], genes written, all lists of an example together.
    """

    tokens: list[NDArray[np.int32]]
    cut: NDArray[np.bool_]
    genes: NDArray[np.int64]


class Asker:
    """Writes the prompts of one task with one template.

    Parameters
    ----------
    formatter
        Of the tokenizer and the genes.
    template
        Phrasing; its response is not written.
    limit
        Most tokens of a prompt.
    longest_piece
        Most characters of a token, to refuse texts that cannot fit without tokenising them.
    """

    def __init__(self, formatter: Formatter, template: Template, limit: int, longest_piece: int):
        self.formatter, self.limit = formatter, limit
        self.template, self._longest = dataclasses.replace(template, response=""), longest_piece
        self.fields = frozenset(self.template.fields) - COUNTED

    def __call__(
        self,
        fields: Fields,
        genes: NDArray[np.int32],
        indptr: NDArray[np.int64],
        *,
        lists: NDArray[np.int64] | None = None,
        n_genes: NDArray[np.int64] | int | None = None,
    ) -> Prompts:
        """Prompts of N examples.

        Parameters
        ----------
        fields
            Texts of the template's fields, [N] each.
        genes, indptr
            Gene lists of all examples, one after the other.
        lists
            Lists of each example, int [N]; one each by default.
        n_genes
            What ``{num_genes}`` says; by default how many are written.

        Raises
        ------
        ValueError
            If the texts alone are longer than the model can read.
        """
        n_lists = len(indptr) - 1
        counts = np.ones(n_lists, np.int64) if lists is None else lists
        n = len(counts)
        texts = {name: fields[name] for name in self.fields} | {"num_cells": numbers(counts)}
        self._refuse_long(texts)
        draft = Draft((self.template,), np.zeros(n, np.int64), texts, offsets(counts), counts)
        slots, held = self.formatter.slots(draft), self.formatter.rows.lists(genes, indptr)

        def told(kept: NDArray[np.int64]) -> Draft:
            shown = np.zeros(n, np.int64)
            if n_genes is None:
                np.maximum.at(shown, np.repeat(np.arange(n), counts), kept)
            else:
                shown[:] = n_genes
            return draft.replace_texts(num_genes=numbers(shown))

        kept = cut_prompts(self.formatter, told, slots, held, self.limit)
        found = self.formatter.lengths(told(kept), slots, held, kept)
        if (found > self.limit).any():
            worst = int(found.argmax())
            raise ValueError(
                f"a prompt takes {found[worst]:,} tokens even with one gene a cell, the model reads {self.limit:,} "
                "besides its answer: shorten the text, or show fewer cells"
            )
        rows = self.formatter.tokens(
            told(kept), genes[positions(indptr[:-1], kept)], offsets(kept), with_response=False
        )
        example = np.repeat(np.arange(n), counts)
        cut = np.bincount(example, kept < held.lengths, n) > 0
        written = np.bincount(example, kept, n).astype(np.int64)
        return Prompts(np.split(rows.tokens, rows.indptr[1:-1]) if n else [], cut, written)

    def _refuse_long(self, texts: Fields) -> None:
        """Texts of more characters than the model can read, without tokenising them."""
        most = self.limit * self._longest
        for name in self.fields:
            for code in np.unique(texts[name].codes).tolist():
                if (length := len(texts[name].value(code))) > most:
                    raise ValueError(
                        f"{name} has {length:,} characters; the model reads {self.limit:,} tokens: shorten it"
                    )


def choose_templates(
    task: str, prompts: str, available: frozenset[str] | set[str], given: frozenset[str] | set[str], n: int = 1
) -> list[Template]:
    """The first ``n`` templates of a task whose fields are there; those that tell more of what was ``given`` first.

    Raises
    ------
    ValueError
        If no template does with these fields; says what is missing. If ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"n_prompts={n} must be at least 1")
    found = [t for t in load_templates(task, prompts) if "interactions" not in t.fields]
    usable = [t for t in found if asked_fields(t) - COUNTED <= available]
    if not usable:
        needed = min((asked_fields(t) - COUNTED - available for t in found), key=len)
        raise ValueError(
            f"every prompt of {task} (prompts={prompts!r}) tells something that is not known here; give "
            + " and ".join(f"{name}=…" for name in sorted(needed))
        )
    usable.sort(key=lambda t: -len(asked_fields(t) & given))
    return usable[:n]


def asked_fields(template: Template) -> frozenset[str]:
    """Fields of a template's prompt."""
    return frozenset(dataclasses.replace(template, response="").fields)


def texts_of(
    obs: pd.DataFrame, columns: Mapping[str, str], constants: Mapping[str, str]
) -> tuple[dict[str, "Column"], dict[str, str]]:
    """Columns of ``obs`` that tell fields, and fields that are the same for all cells.

    Parameters
    ----------
    obs
        Annotation of the cells.
    columns
        Column by field.
    constants
        Text by field.

    Raises
    ------
    CellDataError
        If a column is not there, or some cell has no value in it.
    ValueError
        If prompts have no such field.
    """
    check_fields((*columns, *constants))
    out = {}
    for field, column in columns.items():
        if column not in obs.columns:
            raise CellDataError(f"adata.obs has no column {column!r} for the prompts' {{{field}}}")
        out[field] = Column.of(obs[column])
        if (missing := out[field].codes < 0).any():
            raise CellDataError(f"adata.obs[{column!r}] has no value for {missing.sum()} cells, which prompts tell")
    return out, dict(constants)


def check_fields(names: Iterable[str]) -> None:
    """Refuse names that no prompt can tell anything by; says which are near."""
    for name in names:
        if name not in TOLD:
            near = get_close_matches(name, sorted(TOLD), n=2)
            hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
            raise ValueError(f"{name!r} is no field of prompts{hint}; those are {', '.join(sorted(TOLD))}")


@dataclasses.dataclass(frozen=True)
class Column:
    """Texts of cells as codes into their values."""

    codes: NDArray[np.int64]
    values: tuple[str, ...]

    @staticmethod
    def of(values: Any) -> "Column":
        """Of a pandas column; -1 where there is no value."""
        codes, found = pd.factorize(pd.Series(values).astype("object").where(pd.Series(values).notna(), None))
        texts = tuple(str(value).strip() for value in found)
        blank = np.array([not text for text in texts] + [False])
        return Column(np.where(blank[codes], -1, codes), texts)

    def texts(self, rows: NDArray | slice) -> Texts:
        """Those of some cells."""
        return Texts(self.codes[rows], self.values.__getitem__)


def constant(text: str, n: int) -> Texts:
    """One text for N examples."""
    return Texts(np.zeros(n, np.int64), (text,).__getitem__)


def shared(values: Mapping[str, str], n: int) -> dict[str, Texts]:
    """Several of them."""
    return {name: constant(value.strip(), n) for name, value in values.items()}


def listed(texts: Sequence[str]) -> Texts:
    """A text an example."""
    return Texts.of([text.strip() for text in texts])
