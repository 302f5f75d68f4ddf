"""The gene names a corpus or a model knows, and their integer ids."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .errors import CellDataError, shown

_HEADER = ("gene_id", "symbol")


class GeneVocabulary:
    """Ordered, unique, upper-cased gene names; a gene's id is its place.

    Parameters
    ----------
    names
        Gene symbols, in any case. A name is one word of a cell sentence, so it holds no white space.

    Attributes
    ----------
    names : tuple of str
        Upper-cased names, by id.
    index : dict of str to int
        Id by upper-cased name.

    Raises
    ------
    CellDataError
        If a name is empty, holds white space, or is there twice after upper-casing.
    """

    def __init__(self, names: Sequence[str]):
        self.names: tuple[str, ...] = tuple(str(name).upper() for name in names)
        self.index: dict[str, int] = {name: i for i, name in enumerate(self.names)}
        self._refuse_bad_names(names)

    def _refuse_bad_names(self, given: Sequence[str]) -> None:
        odd = [i for i, name in enumerate(self.names) if len(name.split()) != 1 or name.split()[0] != name]
        if odd:
            raise CellDataError(
                "gene names must be single words, because a cell sentence separates them by spaces; "
                f"these rows are empty or hold white space: {shown(f'{i} ({given[i]!r})' for i in odd)}"
            )
        if len(self.index) != len(self.names):
            twice = {name for name, n in Counter(self.names).items() if n > 1}
            where = (f"{given[i]!r} (row {i})" for i, name in enumerate(self.names) if name in twice)
            raise CellDataError(
                f"{len(twice)} gene names are there more than once after upper-casing: {shown(where, 8)}; "
                "rename or merge them first"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.upper() in self.index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GeneVocabulary) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"GeneVocabulary({len(self)} genes: {shown(self.names, 3)})"

    def ids(self, names: Iterable[str]) -> np.ndarray:
        """Ids of `names` (any case).

        Returns
        -------
        np.ndarray
            int32 [len(names)].

        Raises
        ------
        CellDataError
            If a name is unknown; the message lists the unknown ones.
        """
        wanted = [str(name).upper() for name in names]
        try:
            return np.fromiter((self.index[name] for name in wanted), np.int32, len(wanted))
        except KeyError:
            unknown = dict.fromkeys(name for name in wanted if name not in self.index)
            raise CellDataError(
                f"{len(unknown)} of {len(wanted)} gene names are not in the vocabulary of {len(self)} genes: "
                f"{shown(unknown)}; drop them first (repair_sentence does so for a sentence)"
            ) from None

    def save(self, path: str | Path, columns: Mapping[str, Sequence[object]] | None = None) -> None:
        """Write `genes.tsv`: tab-separated columns `gene_id` (the row's number), `symbol`, then `columns`."""
        extra = dict(columns or {})
        for name, values in extra.items():
            if len(values) != len(self):
                raise CellDataError(f"column {name!r} has {len(values)} values for {len(self)} genes")
        rows = [[*_HEADER, *extra]]
        table = zip(range(len(self)), self.names, *extra.values(), strict=True)
        rows += [[str(value) for value in row] for row in table]
        for row in rows:
            if any("\t" in cell or "\n" in cell or "\r" in cell for cell in row):
                raise CellDataError(f"a value for {path} holds a tab or a line end: {row}")
        Path(path).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "GeneVocabulary":
        """Read what `save` wrote; further columns are ignored.

        Raises
        ------
        CellDataError
            If the header is another one, or a row's `gene_id` is not its number (rows lost or reordered).
        """
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        if tuple(lines[0].rstrip("\r").split("\t")[:2]) != _HEADER:
            raise CellDataError(f"{path}: the header must begin with gene_id<tab>symbol, it is {lines[0]!r}")
        if lines[-1] == "":
            lines.pop()
        names = []
        for row, line in enumerate(lines[1:]):
            cells = line.rstrip("\r").split("\t")
            if len(cells) < 2 or cells[0] != str(row):
                raise CellDataError(
                    f"{path}, line {row + 2}: expected gene_id {row} and a symbol, found {line!r}; "
                    "rows must not be removed or reordered, ids of a corpus point at them"
                )
            names.append(cells[1])
        try:
            return cls(names)
        except CellDataError as error:
            raise CellDataError(f"{path}: {error}") from None


def as_vocabulary(vocabulary: GeneVocabulary | Iterable[str]) -> GeneVocabulary:
    """`vocabulary` itself, or one made of a list of gene names."""
    return vocabulary if isinstance(vocabulary, GeneVocabulary) else GeneVocabulary(list(vocabulary))
