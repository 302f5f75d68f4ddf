"""Gene sets of GMT files: a line a set; name, description and genes separated by tabs."""

from pathlib import Path
from typing import NamedTuple

from .text_files import COMPRESSED, KnowledgeError, open_text


class GmtSet(NamedTuple):
    """A line of a file: name and description as they stand there, symbols upper-cased, each once, in their order."""

    name: str
    description: str
    genes: tuple[str, ...]


def is_gmt(path: str) -> bool:
    """Whether a file is one of gene sets by its name, plain or compressed."""
    return path.endswith((".gmt", *(f".gmt{suffix}" for suffix in COMPRESSED)))


def read_gmt(path: Path) -> list[GmtSet]:
    """All sets of a file, plain or compressed (``.gz``, ``.xz``, ``.bz2``, ``.zip``).

    Raises
    ------
    KnowledgeError
        For a line without a name or genes, a gene that is no single word, or a file without sets.
    FileNotFoundError
        If there is no such file.
    """
    sets = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            name, _, rest = line.rstrip("\r\n").partition("\t")
            description, _, listed = rest.partition("\t")
            genes = tuple(dict.fromkeys(gene.strip().upper() for gene in listed.split("\t") if gene.strip()))
            if not name.strip() or not genes:
                raise KnowledgeError(
                    f"{path}, line {number}: expected name, description and genes separated by tabs, found "
                    f"{line[:60].rstrip()!r}; correct or remove this line"
                )
            if odd := next((gene for gene in genes if len(gene.split()) > 1), None):
                raise KnowledgeError(
                    f"{path}, line {number}, set {name.strip()!r}: {odd!r} is no gene symbol; separate genes by tabs"
                )
            sets.append(GmtSet(name.strip(), description.strip(), genes))
    if not sets:
        raise KnowledgeError(f"{path} holds no gene set; expected the GMT format of MSigDB")
    return sets
