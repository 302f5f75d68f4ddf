"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), half-split convention."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Rotation(NamedTuple):
    """By how much the R/2 pairs of dimensions of each token turn; float32, the same for all layers and heads."""

    sin: Float[Array, "B T 1 R/2"]
    cos: Float[Array, "B T 1 R/2"]


def rotation(positions: Int[Array, "B T"], dims: int, *, theta: float, position_scale: float = 1.0) -> Rotation:
    """What ``rotate`` needs to know of the positions.

    Parameters
    ----------
    positions
        Position of each token within its own example.
    dims
        Even number of leading dimensions of a head that are rotated, R.
    theta
        Base wavelength.
    position_scale
        Positions are divided by it (linear interpolation, Chen et al. 2023, arXiv:2306.15595).
    """
    half = dims // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half) / position_scale
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    return Rotation(jnp.sin(angle), jnp.cos(angle))


def rotate(x: Float[Array, "B T N E"], by: Rotation) -> Float[Array, "B T N E"]:
    """Rotate the leading R dimensions of each head of queries or keys, dimension i being paired with i + R/2.

    Returns
    -------
    Array of ``x``'s shape and dtype; products are computed in float32.
    """
    dims = 2 * by.sin.shape[-1]
    first, second = jnp.split(x[..., :dims].astype(jnp.float32), 2, axis=-1)
    parts = [first * by.cos - second * by.sin, second * by.cos + first * by.sin]
    rotated = jnp.concatenate([jax.lax.convert_element_type(part, x.dtype) for part in parts], axis=-1)
    return rotated if dims == x.shape[-1] else jnp.concatenate([rotated, x[..., dims:]], axis=-1)
