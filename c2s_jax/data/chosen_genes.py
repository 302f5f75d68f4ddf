"""Choosing genes by a setting."""

from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.gmt import is_gmt, read_gmt
from c2s_jax.data.corpus import Corpus


def chosen_genes(corpus: Corpus, which: str) -> NDArray[np.int64]:
    """Ids of the genes of a corpus that a setting names, rising.

    Parameters
    ----------
    which
        Empty for all; a file, ``FILE`` with one symbol a line or ``FILE.gmt:SET[+SET...]`` for sets of a GMT file,
        plain or compressed (``.gmt.gz``); or symbols, separated by commas.

    Raises
    ------
    ValueError
        When a set is not in its file, a line of the file is no set, or none of the genes is in the corpus.
    OSError
        When a file cannot be read.
    """
    if not which:
        return np.arange(len(corpus.genes))
    path, _, sets = which.partition(":")
    if is_gmt(path):
        names = _of_sets(Path(path), sets)
    elif "," not in path and Path(path).is_file():  # a long list is no name of a file
        names = Path(path).read_text(encoding="utf-8").split()
    else:
        names = [name.strip() for name in which.split(",") if name.strip()]
    known = [name for name in dict.fromkeys(n.upper() for n in names) if name in corpus.genes]
    if not known:
        raise ValueError(f"genes={which!r}: none of its {len(names)} genes is in the corpus")
    return np.sort(corpus.genes.ids(known)).astype(np.int64)


def _of_sets(path: Path, wanted: str) -> list[str]:
    known: dict[str, list[str]] = {}
    for found in read_gmt(path):
        known.setdefault(found.name, []).extend(found.genes)
    names = wanted.split("+") if wanted else list(known)
    if missing := [name for name in names if name not in known]:
        near = get_close_matches(missing[0], known, n=3) or list(known)[:3]
        raise ValueError(f"{path} has no set {', '.join(missing)}; it has {len(known)}, such as {', '.join(near)}")
    return [gene for name in names for gene in known[name]]
