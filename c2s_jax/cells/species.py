"""Genes of several species in one list of names."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import CellDataError

# Names of assemblies as Cell Ranger puts them before the names of genes: GRCh38_ACTB, mm10___Actb.
_ASSEMBLY = re.compile(
    r"^((?:GRC[a-z]{1,2}|hg|mm|rn|mRatBN|Rnor|BDGP|WBcel|danRer|galGal|Sscrofa)\d[\w.-]*?)_+(?=[^_])"
)
_ENSEMBL = re.compile(r"^(ENS[A-Z]{0,6}[GT])\d{6,}")
_LATIN = {"human": "homo sapiens", "mouse": "mus musculus", "rat": "rattus norvegicus"}
# a gene of another species now and then, a reporter or a virus, makes no second species
_SECOND = 0.01


def latin_name(organism: str) -> str:
    """One spelling for "human" and "Homo sapiens"; others are lower-cased."""
    name = organism.strip().lower()
    return _LATIN.get(name, name)


def species_tags(names: Sequence[str]) -> list[str]:
    """What in each name tells its species: the assembly before it, or the letters of an Ensembl identifier; or ""."""
    found = (_ASSEMBLY.match(name) or _ENSEMBL.match(name) for name in names)
    return [match.group(1) if match else "" for match in found]


def one_species(
    names: Sequence[str], prefix: str | None, tags: Sequence[str] | None = None
) -> tuple[str | None, NDArray[np.bool_], str]:
    """Choose the genes of one species.

    Parameters
    ----------
    names : sequence of str [G]
    prefix : str or None
        What the names of the species begin with, e.g. "GRCh38", "mm10" or "ENSMUSG"; None if there is one only.
    tags : sequence of str [G], optional
        Species of each gene; by default from the names.

    Returns
    -------
    (prefix, keep, report)
        The species, or None if names do not tell; bool [G], which genes are of it; what is left out, in a
        sentence, or "".

    Raises
    ------
    CellDataError
        If there are several species and none is chosen, or the one chosen is not there.
    """
    tags = species_tags(names) if tags is None else list(tags)
    if prefix is not None:
        prefix = prefix.rstrip("_")
        tags = [prefix if name.startswith(f"{prefix}_") else tag for name, tag in zip(names, tags, strict=True)]
    counts = Counter(tag for tag in tags if tag)
    listed = ", ".join(f"{n} of {tag}" for tag, n in counts.most_common())
    if prefix is None:
        several = [tag for tag, n in counts.most_common() if n >= _SECOND * counts.total()]
        if len(several) > 1:
            raise CellDataError(
                f"there are genes of several species: {listed}. Choose one with genes_prefix={several[0]!r}, "
                "and make a data set of each"
            )
        return (several[0] if several else None), np.ones(len(names), dtype=bool), ""
    keep = np.array([tag == prefix for tag in tags], dtype=bool)
    if not keep.any():
        raise CellDataError(f"no gene is of genes_prefix={prefix!r}; there are {listed or 'no prefixes at all'}")
    left_out = int((~keep).sum())
    return prefix, keep, f"{left_out} genes that are not of {prefix} are left out ({listed})" if left_out else ""


def strip_prefix(names: Sequence[str], prefix: str) -> list[str]:
    """Names without `prefix` and the underscores after it."""
    return [name[len(prefix) :].lstrip("_") or name if name.startswith(f"{prefix}_") else name for name in names]
