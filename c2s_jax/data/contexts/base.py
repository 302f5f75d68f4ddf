"""What a context is: the cells and texts of examples, chosen by their keys."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.cell_source import CellBlock
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.data.settings import MixtureTask
from c2s_jax.data.texts import Texts, numbers


class MissingData(ValueError):
    """The corpus has nothing that a task could be asked about."""


class ListSource(Protocol):
    """Where gene lists are read from."""

    @property
    def n_genes(self) -> NDArray[np.int32]: ...
    def take(self, indices: NDArray, /) -> CellBlock: ...


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The gene lists and texts of N examples.

    Attributes
    ----------
    lists
        Records of the context's source, one example's after the other's, int64 [L].
    indptr
        Lists of each example, int64 [N + 1].
    cells
        How many of them, from the first, are the cells that ``{multi_cell_sentences}`` shows, int64 [N].
    anchor
        The cell whose fields the templates tell, int64 [N].
    texts
        Texts that the context itself gives.
    """

    lists: NDArray[np.int64]
    indptr: NDArray[np.int64]
    cells: NDArray[np.int64]
    anchor: NDArray[np.int64]
    texts: Mapping[str, Texts] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(first: NDArray, others: NDArray, counts: NDArray, **texts: Texts) -> "Chosen":
        """A cell and ``counts`` others beside it; the first one's fields are told."""
        indptr = offsets(counts + 1)
        lists = np.empty(indptr[-1], np.int64)
        lists[indptr[:-1]] = first
        lists[positions(indptr[:-1] + 1, counts)] = others
        return Chosen(lists, indptr, counts + 1, first, texts)


class Context:
    """Examples around one cell each; subclasses choose others beside it.

    An example is a unit, here a cell, and a key from which everything else is drawn.
    """

    lacks = "the split holds no cells"

    def __init__(self, known: Known, settings: MixtureTask):
        self.known, self.settings = known, settings
        self.source: ListSource = known.cells

    def usable(self) -> NDArray[np.bool_]:
        """Which units can be asked about, bool [U]."""
        return self.known.single

    def datasets(self) -> NDArray:
        """Data set of each unit, int [U]."""
        return self.known.cells.dataset_ids

    def has(self, field: str) -> NDArray[np.bool_]:
        """Which units have a text for a field, bool [U]."""
        return self.known.has(field)

    def choose(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> Chosen:
        """Lists and texts of the examples of some units."""
        return Chosen.of(unit, unit[:0], np.zeros(len(unit), np.int64))

    def texts(self, field: str, chosen: Chosen, key: NDArray[np.uint64]) -> Texts:
        """The text of a field in chosen examples."""
        if field in chosen.texts:
            return chosen.texts[field]
        if field == "num_cells":
            return numbers(chosen.cells)
        return self.known.texts(field, chosen.anchor, key)
