"""Gene sets from GMT files, with names that read as text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.knowledge_files.tables import KnowledgeError, open_text

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
    """Read GMT files: a line a set; name, description and genes separated by tabs.

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
        sets = _read(path)
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


def _read(path: Path) -> list[tuple[str, str, tuple[str, ...]]]:
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
            sets.append((name.strip(), description.strip(), genes))
    if not sets:
        raise KnowledgeError(f"{path} holds no gene set; expected the GMT format of MSigDB")
    return sets
