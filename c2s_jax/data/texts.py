"""Text fields of many examples, as numbers of their values."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.ragged import take_rows


@dataclasses.dataclass(frozen=True)
class Texts:
    """A text field of N examples.

    Attributes
    ----------
    codes
        Number of each example's value, int [N]; with ``indptr``, those of every example one after the other.
    value
        The text with a number.
    indptr
        int [N + 1], for fields that name several things an example; None for others.
    """

    codes: NDArray
    value: Callable[[int], str]
    indptr: NDArray | None = None

    @staticmethod
    def of(values: Sequence[str]) -> "Texts":
        """One text an example."""
        return Texts(np.arange(len(values)), values.__getitem__)

    @staticmethod
    def of_series(values: Sequence[Sequence[str]]) -> "Texts":
        """Several texts an example."""
        flat = [text for texts in values for text in texts]
        indptr = np.cumsum([0, *map(len, values)])
        return Texts(np.arange(len(flat)), flat.__getitem__, indptr)

    def select(self, rows: NDArray) -> "Texts":
        """The field of some examples."""
        if self.indptr is None:
            return dataclasses.replace(self, codes=self.codes[rows])
        codes, indptr = take_rows(self.codes, self.indptr, rows)
        return dataclasses.replace(self, codes=codes, indptr=indptr)


def numbers(codes: NDArray) -> Texts:
    """Numbers written as such, e.g. ``num_genes``."""
    return Texts(codes, str)
