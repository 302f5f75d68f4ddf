"""Earlier and other names of genes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .errors import shown


@dataclass(frozen=True)
class AliasTable(Mapping[str, str]):
    """Symbol of each alias; a mapping.

    Attributes
    ----------
    symbols : dict of str to str
        Approved symbol of each upper-cased alias.
    approved : frozenset of str
        Approved symbols, upper-cased: they are no aliases.
    complete : bool
        Whether these are all there are, so that other names are unknown.
    ambiguous : frozenset of str
        Upper-cased aliases of several symbols, which are not in `symbols`.
    """

    symbols: Mapping[str, str] = field(default_factory=dict)
    approved: frozenset[str] = frozenset()
    complete: bool = False
    ambiguous: frozenset[str] = frozenset()

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]], symbols: Sequence[str] = ()) -> "AliasTable":
        """A table of (alias, symbol) in any case, and of all symbols there are, if known.

        An approved symbol is no alias, and an alias of two symbols is ambiguous.
        """
        known = frozenset(name.upper() for name in symbols) | {symbol.upper() for _, symbol in pairs}
        found: dict[str, dict[str, str]] = {}
        for alias, symbol in pairs:
            if alias.upper() not in known:
                found.setdefault(alias.upper(), {})[symbol.upper()] = symbol
        single = {alias: next(iter(of.values())) for alias, of in found.items() if len(of) == 1}
        return cls(single, known, bool(symbols), frozenset(found) - single.keys())

    def __getitem__(self, alias: str) -> str:
        return self.symbols[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(self.symbols)

    def __len__(self) -> int:
        return len(self.symbols)


def rename_aliases(names: Sequence[str], aliases: Mapping[str, str]) -> tuple[list[str], NDArray[np.bool_], list[str]]:
    """Replace aliases by symbols.

    A name is left as it is where it is an approved symbol, where its alias is ambiguous, and where the symbol
    is among `names` already or two names would get it: a matrix whose columns were added up for that would no
    longer be the one that was given.

    Parameters
    ----------
    names : sequence of str [G]
        In any case.
    aliases : dict of upper-cased alias to symbol, or AliasTable

    Returns
    -------
    (names, known, report)
        The names; bool [G], whether each is an approved symbol now (all True if `aliases` does not have all
        of them); what was done, in sentences.
    """
    table = aliases if isinstance(aliases, AliasTable) else AliasTable.of(list(aliases.items()))
    upper = [name.upper() for name in names]
    target = [table.symbols.get(name, name).upper() for name in upper]
    takers = Counter(target)
    renamed, taken = [], []
    result = list(names)
    for i, (old, new) in enumerate(zip(upper, target, strict=True)):
        if old == new:
            continue
        if takers[new] > 1:
            taken.append(f"{names[i]} (→ {new})")
        else:
            result[i] = table.symbols[old]
            renamed.append(f"{names[i]} → {result[i]}")
    report = [f"{len(renamed)} genes get their approved symbol: {shown(renamed)}"] if renamed else []
    if taken:
        report.append(f"{len(taken)} aliases keep their name, as another gene has the symbol: {shown(taken)}")
    unclear = [name for name, key in zip(names, upper, strict=True) if key in table.ambiguous]
    if unclear:
        report.append(f"{len(unclear)} aliases of several symbols keep their name: {shown(unclear)}")
    return result, _known(result, table, report), report


def _known(names: list[str], table: AliasTable, report: list[str]) -> NDArray[np.bool_]:
    if not table.complete:
        return np.ones(len(names), dtype=bool)
    known = np.array([name.upper() in table.approved for name in names], dtype=bool)
    if not known.all():
        listed = shown(names[i] for i in np.flatnonzero(~known).tolist())
        report.append(f"{int((~known).sum())} of {len(names)} names are no approved symbols: {listed}")
    return known
