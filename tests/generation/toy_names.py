"""Gene names in the pieces of a toy tokenizer, and gene lists by brute force."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from c2s_jax.text import GeneTokenTable

SPACE, END = "▁", 1
PIECES = f"<pad> <end> {SPACE} A B C . {SPACE}A {SPACE}AB {SPACE}B. AB BC C. B. CAB {SPACE}C".split()


def encode(text: str) -> list[int]:
    """Longest piece first, from the left; never across a space."""
    ids, text = [], text.replace(" ", SPACE)
    while text:
        word = text if SPACE not in text[1:] else text[: text.index(SPACE, 1)]
        piece = max((p for p in PIECES if word.startswith(p)), key=len)
        ids.append(PIECES.index(piece))
        text = text[len(piece) :]
    return ids


def table_of(names: Sequence[str]) -> GeneTokenTable:
    """The table that a real tokenizer would give."""
    rows = [encode(lead + name + end) for lead, end in ((" ", ""), ("", ""), (" ", "."), ("", ".")) for name in names]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    return GeneTokenTable(names, np.concatenate(rows), offsets, "toy")


def all_lists(
    names: Sequence[str], sizes: Sequence[int], leading: str = "space", trailing: str = "period"
) -> set[tuple[int, ...]]:
    """Tokens of every list of these sizes, its end included."""
    out = set()
    for size in sizes:
        for chosen in permutations(names, size):
            text = (" " if leading == "space" else "") + " ".join(chosen) + ("." if trailing == "period" else "")
            out.add((*encode(text), END))
    return out
