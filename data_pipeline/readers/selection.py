"""Which of the matrices of an AnnData is read."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from c2s_jax.cells.errors import shown

from .errors import ReadError, reading
from .matrices import RowMatrix

Lazy = Callable[[], RowMatrix]


def layer_name(layer: str) -> str:
    """Name of a layer's matrix."""
    return f"layers[{layer!r}]"


def choose(matrices: Mapping[str, Lazy], layer: str | None, use_raw: bool | None, file: str) -> tuple[str, RowMatrix]:
    """Name and rows of the matrix asked for.

    Parameters
    ----------
    matrices
        What there is: "X", "raw", "layers['…']".
    layer, use_raw
        A layer, or `raw`; X if neither is given.
    file
        For messages.

    Raises
    ------
    ReadError
        If it is not there, with what there is.
    """
    if layer is not None and use_raw:
        raise ReadError(f"{file}: both layer={layer!r} and use_raw=True are given; choose one")
    name = layer_name(layer) if layer is not None else "raw" if use_raw else "X"
    if name not in matrices:
        raise ReadError(f"{file}: {_absent(matrices, layer, use_raw)}. There is {_listed(matrices)}")
    with reading(f"{file}: {name}"):
        return name, matrices[name]()


def alternatives(matrices: Mapping[str, Lazy], chosen: str) -> dict[str, Lazy]:
    """The other matrices, by how to ask for them."""
    return {_how(name): lazy for name, lazy in matrices.items() if name != chosen}


def _absent(matrices: Mapping[str, Lazy], layer: str | None, use_raw: bool | None) -> str:
    if layer is None:
        return "use_raw=True, but adata.raw is empty" if use_raw else "adata.X is empty"
    near = get_close_matches(layer_name(layer), matrices, n=1)
    return f"adata.layers has no {layer!r}" + (f" (nearest: adata.{near[0]})" if near else "")


def _listed(matrices: Mapping[str, Lazy]) -> str:
    return shown(map(_how, matrices)) or "no matrix at all"


def _how(name: str) -> str:
    if name.startswith("layers["):
        return f"adata.{name} (layer={name[7:-1]})"
    return "adata.raw (use_raw=True)" if name == "raw" else "adata.X (the default: no layer, use_raw=False)"
