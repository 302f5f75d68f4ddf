"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), half-split convention."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotate(
    x: Float[Array, "B T N E"],
    positions: Int[Array, "B T"],
    *,
    theta: float,
    dims: int | None = None,
    position_scale: float = 1.0,
) -> Float[Array, "B T N E"]:
    """Rotate each head of queries or keys by its token's position.

    Parameters
    ----------
    x
        Queries or keys.
    positions
        Position of each token within its own example.
    theta
        Base wavelength.
    dims
        Even number of leading dimensions that are rotated, R; None for all. Dimension i is paired with i + R/2.
    position_scale
        Positions are divided by it (linear interpolation, Chen et al. 2023, arXiv:2306.15595).

    Returns
    -------
    Array of ``x``'s shape and dtype; angles and products are computed in float32.
    """
    dims = x.shape[-1] if dims is None else dims
    half = dims // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half) / position_scale
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x[..., :dims].astype(jnp.float32), 2, axis=-1)
    parts = [first * cos - second * sin, second * cos + first * sin]
    rotated = jnp.concatenate([jax.lax.convert_element_type(part, x.dtype) for part in parts], axis=-1)
    return rotated if dims == x.shape[-1] else jnp.concatenate([rotated, x[..., dims:]], axis=-1)
