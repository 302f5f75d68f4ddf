"""Which organism cells are of, as prompts tell it."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import anndata as ad

from c2s_jax.cells import CellDataError
from c2s_jax.cells.species import latin_name
from c2s_jax.inference.prompting import Column


def organism_of(
    adata: ad.AnnData, given: str | None, values: Mapping[str, Sequence[str]], report: list[str]
) -> "str | Column | None":
    """The organism that was given, that ``adata`` names, or the model's only one; None if nothing tells.

    Parameters
    ----------
    adata
        ``obs["organism"]`` or ``uns["organism"]`` may name it, as CELLxGENE's files do.
    given
        What the caller says.
    values
        Values of fields in training, from the model's card.
    report
        Gets what was assumed of cells without a value.

    Raises
    ------
    ValueError
        If the model was trained on others only, or cells without a value could be of several.
    """
    known = tuple(values.get("organism", ()))
    if given:
        return _named(given, known)
    if "organism" in adata.obs.columns:
        column = Column.of(adata.obs["organism"])
        if (column.codes >= 0).any():
            return _of_cells(column, known, report)
    if isinstance(adata.uns.get("organism"), str):
        return _named(adata.uns["organism"], known)
    return known[0] if len(known) == 1 else None


def _of_cells(column: Column, known: Sequence[str], report: list[str]) -> str | Column:
    """One name where all cells that have one have the same."""
    named = tuple(_named(value, known) if value else "" for value in column.values)
    names, missing = sorted({*named} - {""}), int((column.codes < 0).sum())
    if len(names) == 1:
        if missing:
            report.append(f"{missing} cells without a value of obs['organism'] are taken for {names[0]}, as the others")
        return names[0]
    if missing:
        raise CellDataError(
            f"adata.obs['organism'] has no value for {missing} cells and names {', '.join(names)}: fill it in, or drop "
            "those cells"
        )
    return Column(column.codes, named)


def _named(name: str, known: Sequence[str]) -> str:
    """The name in the model's spelling; "human" and "Homo sapiens" are the same."""
    by_latin = {latin_name(other): other for other in known}
    if not known or latin_name(name) in by_latin:
        return by_latin.get(latin_name(name), name.strip())
    near = get_close_matches(latin_name(name), list(by_latin), n=1)
    hint = f"; did you mean {by_latin[near[0]]!r}?" if near else ""
    raise ValueError(f"organism {name!r} is unknown to this model, which was trained on {', '.join(known)}{hint}")
