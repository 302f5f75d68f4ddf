"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), half-split convention."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotate(x: Float[Array, "B T N E"], positions: Int[Array, "B T"], *, theta: float) -> Float[Array, "B T N E"]:
    """Rotate each head of queries or keys by its token's position.

    Parameters
    ----------
    x
        Queries or keys; E is even. Dimension i is paired with i + E/2.
    positions
        Position of each token within its own example.
    theta
        Base wavelength.

    Returns
    -------
    Array of ``x``'s shape and dtype; angles and products are computed in float32.
    """
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jax.lax.convert_element_type(rotated, x.dtype)
