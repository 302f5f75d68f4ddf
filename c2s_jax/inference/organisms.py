"""Which organism cells are of, as prompts tell it."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import anndata as ad

from c2s_jax.inference.prompting import Column

LATIN = {"human": "homo sapiens", "mouse": "mus musculus", "rat": "rattus norvegicus"}


def organism_of(adata: ad.AnnData, given: str | None, values: Mapping[str, Sequence[str]]) -> "str | Column | None":
    """The organism that was given, that ``adata`` names, or the model's only one; None if nothing tells.

    Parameters
    ----------
    adata
        ``obs["organism"]`` or ``uns["organism"]`` may name it, as CELLxGENE's files do.
    given
        What the caller says.
    values
        Values of fields in training, from the model's card.

    Raises
    ------
    ValueError
        If the model was trained on others only.
    """
    known = tuple(values.get("organism", ()))
    if given:
        return _named(given, known)
    if "organism" in adata.obs.columns:
        column = Column.of(adata.obs["organism"])
        if (column.codes >= 0).all():
            return Column(column.codes, tuple(_named(value, known) for value in column.values))
    if isinstance(adata.uns.get("organism"), str):
        return _named(adata.uns["organism"], known)
    return known[0] if len(known) == 1 else None


def _named(name: str, known: Sequence[str]) -> str:
    """The name in the model's spelling; "human" and "Homo sapiens" are the same."""
    by_latin = {_latin(other): other for other in known}
    if not known or _latin(name) in by_latin:
        return by_latin.get(_latin(name), name.strip())
    near = get_close_matches(_latin(name), list(by_latin), n=1)
    hint = f"; did you mean {by_latin[near[0]]!r}?" if near else ""
    raise ValueError(f"organism {name!r} is unknown to this model, which was trained on {', '.join(known)}{hint}")


def _latin(name: str) -> str:
    return LATIN.get(name.strip().lower(), name.strip().lower())
