"""A feed-forward network taken in parts of its inner dimension, so that only one part is held at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from c2s_jax.models import remat


def in_chunks(ffw: Any, chunks: int, x: Float[Array, "B T D"], key: Array | None) -> Float[Array, "B T D"]:
    """``ffw(x, key)`` as a sum over ``chunks`` parts of the dimension "ffw" of its parameters.

    Each part's weights are gathered, used and dropped before the next part's, and so are its activations; in the
    backward pass, too, where "gate" and "up" of one layer are kept for it. Exact but for the rounding of a float32 sum.

    Parameters
    ----------
    ffw
        A module without a bias on its output, whose parameters name their ``axes``.
    key
        Of the low-rank update's dropout.

    Raises
    ------
    ValueError
        Kernels stored in fewer bits, whose tiles do not follow the cut.
    """
    if chunks == 1:
        return ffw(x, key)
    if ffw.gate.codec is not None:
        raise ValueError(f"model.mlp_chunks={chunks} and quantised kernels do not go together; set model.mlp_chunks=1")
    graph, *states = nnx.split(ffw, lambda _, v: "ffw" in v.get_metadata("axes"), ...)
    cut, uncut = states

    def divide(variable: nnx.Variable) -> nnx.Variable:
        value, axis = variable.get_value(), variable.get_metadata("axes").index("ffw")
        size = value.shape[axis] // chunks
        parts = value.reshape(*value.shape[:axis], chunks, size, *value.shape[axis + 1 :])
        return variable.replace(jnp.moveaxis(parts, axis, 0))

    def part(x: Array, piece: nnx.State, index: Array) -> Array:
        part_key = None if key is None else jax.random.fold_in(key, index)
        return nnx.merge(graph, piece, uncut)(x, part_key)

    part = remat.checkpointed(part, "gate=device,up=device")

    def add(total: Array, xs: tuple[nnx.State, Array]) -> tuple[Array, None]:
        return total + part(x, *xs).astype(total.dtype), None

    parts = nnx.map_state(lambda _, variable: divide(variable), cut)
    total, _ = jax.lax.scan(add, jnp.zeros(x.shape, jnp.float32), (parts, jnp.arange(chunks)))
    return total.astype(x.dtype)
