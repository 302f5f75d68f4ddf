"""Gene sets from GMT files, with names that read as text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from c2s_jax.cells.gmt import read_gmt

# Prefixes of MSigDB's set names: the collection, as it is written in text.
_COLLECTIONS = {
    "HALLMARK": "hallmark",
    "BIOCARTA": "BioCarta",
    "KEGG": "KEGG",
    "KEGG_MEDICUS": "KEGG MEDICUS",
    "NABA": "matrisome",
    "PID": "PID",
    "REACTOME": "Reactome",
    "SA": "SigmaAldrich",
    "SIG": "Signaling Gateway",
    "WP": "WikiPathways",
    "GOBP": "GO process",
    "GOCC": "GO component",
    "GOMF": "GO function",
    "HP": "human phenotype",
}
_WRITTEN = {
    word.upper(): word
    for word in "AKT ATP BCR BMP CNS DNA ECM EMT ER GABA GPCR GTP HIV IFN IGF IL JAK JNK KRAS LPS MAPK MHC mRNA mTOR "
    "mTORC1 NAD ncRNA NF NFKB NK PDGF RAS RNA ROS rRNA TCA TCR TGF TLR TNF TNFA tRNA UV VEGF WNT".split()
} | {"DN": "down"}


@dataclass(frozen=True)
class GeneSet:
    """A named set of genes.

    Attributes
    ----------
    name
        As text: "interferon alpha response (hallmark)".
    description
        What the file says about it; "" where that is nothing or a link.
    source
        Name of the file.
    genes
        Symbols, upper-cased, each once, in the file's order.
    """

    name: str
    description: str
    source: str
    genes: tuple[str, ...]


def read_gene_sets(paths: Iterable[str | Path]) -> list[GeneSet]:
    """Read GMT files, see `read_gmt`.

    Parameters
    ----------
    paths
        Files, plain or compressed (``.gz``, ``.xz``, ``.bz2``, ``.zip``).

    Returns
    -------
    list of GeneSet
        In the files' order; a set that is there twice, with the same name and genes, once.

    Raises
    ------
    KnowledgeError
        For a line without a name or genes, a gene that is no single word, or a file without sets.
    FileNotFoundError
        If there is no such file.
    """
    found: dict[tuple[str, tuple[str, ...]], GeneSet] = {}
    for path in map(Path, paths):
        sets = read_gmt(path)
        symbols = frozenset(gene for _, _, genes in sets for gene in genes)
        for name, description, genes in sets:
            text = readable_name(name, symbols)
            about = "" if re.fullmatch(r"https?://\S*", description) else description
            found.setdefault((text, genes), GeneSet(text, about, path.name, genes))
    return list(found.values())


def readable_name(name: str, symbols: frozenset[str] = frozenset()) -> str:
    """A set's name as text.

    A name of MSigDB (capitals, with its collection before the first underscore) becomes small letters with the
    collection in brackets; gene symbols, known acronyms, words with digits and single letters stay as they are. Of
    other names only underscores become spaces.

    Parameters
    ----------
    name
        As in the file.
    symbols
        Words to leave in capitals.
    """
    prefix = next(
        (p for p in ("KEGG_MEDICUS", name.split("_")[0]) if name.startswith(f"{p}_") and p in _COLLECTIONS), ""
    )
    if not prefix or name != name.upper():
        return " ".join(name.replace("_", " ").split())
    words = re.sub(r"(?<=\d)PATHWAY$", "_PATHWAY", name[len(prefix) :].strip("_")).split("_")
    text = " ".join(_written(word, symbols) for word in words)
    return f"{text} ({_COLLECTIONS[prefix]})"


def _written(word: str, symbols: frozenset[str]) -> str:
    if word in _WRITTEN:
        return _WRITTEN[word]
    return word if word in symbols or len(word) == 1 or re.search(r"\d", word) else word.lower()
