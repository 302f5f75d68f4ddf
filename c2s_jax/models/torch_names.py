"""Parameters of an encoder from tensors in torch's names and layout."""

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models.encoder import Encoder
from c2s_jax.models.linear import Linear

Read = Callable[[str], NDArray]
"""The tensor of a name; KeyError where there is none."""

E = TypeVar("E", bound=Encoder)
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def fill(model: E, read: Read, names: Mapping[str, str], *, where: str) -> E:
    """An abstract model (``nnx.eval_shape``) with its parameters read.

    Parameters
    ----------
    names
        Torch's name of each module of ours, ``{i}`` being the layer.
    where
        The file, for errors.

    Raises
    ------
    ValueError
        When a tensor is missing or has another shape; names it.
    """
    graphdef, abstract = nnx.split(model)
    state = nnx.to_flat_state(abstract)
    filled = []
    for keys, variable in state:
        path = tuple(map(str, keys))
        value = variable.get_value()
        if path[0] == "layers":
            parts = [_tensor(model, path, value.shape[1:], read, names, where, i) for i in range(value.shape[0])]
            array = np.stack(parts)
        else:
            array = _tensor(model, path, value.shape, read, names, where)
        filled.append((keys, variable.replace(jnp.asarray(array, value.dtype))))
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def _tensor(
    model: Encoder,
    path: tuple[str, ...],
    shape: tuple[int, ...],
    read: Read,
    names: Mapping[str, str],
    where: str,
    layer: int | None = None,
) -> NDArray:
    """One layer's part of a parameter."""
    whole = ".".join(path)
    name = f"{names[whole]}.weight" if whole in names else f"{names['.'.join(path[:-1])]}.{LEAVES[path[-1]]}"
    name = name.format(i=layer)
    owner: nnx.Module = reduce(getattr, path[:-1], model)
    turned = isinstance(owner, Linear) and path[-1] == "kernel"
    if isinstance(owner, Linear) and turned:
        n_in = len(owner.in_axes)
        expected: tuple[int, ...] = (math.prod(shape[n_in:]), math.prod(shape[:n_in]))
    else:
        expected = (math.prod(shape),) if path[-1] == "bias" else shape
    try:
        array = read(name)
    except KeyError:
        raise ValueError(f"{where} lacks the tensor {name}") from None
    if array.shape != expected:
        raise ValueError(f"tensor {name} in {where} has shape {array.shape}; by the configuration it is {expected}")
    return (array.T if turned else array).reshape(shape)
