"""Matrix products of 8-bit integers, for training at up to twice the rate of bfloat16 on TPUs and GPUs."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2s_jax.ops.constrain import constrain_weight

STEPS = 127.5  # from zero to the greatest magnitude, as in qwix: half a step is lost at the top end, if at all
TERMS = (2**31 - 1) // 128**2
"""Products that an int32 sums without overflow."""


def int8_product(x: Float[Array, "..."], kernel: Float[Array, "..."], n: int, axes: tuple[str, ...] = ()) -> Array:
    """``tensordot(x, kernel, n)`` in 8-bit integers, and so is the gradient of ``x``.

    Rows of ``x`` and columns of ``kernel`` are rounded to 256 even steps between plus and minus their greatest
    magnitude; products are summed in int32 and scaled back. The gradient of ``x`` multiplies the rows of its incoming
    gradient, rounded alike, by the same codes of the kernel. The kernel's gradient is not rounded: it is that of
    ``tensordot``, as if rounding had a slope of 1 (straight-through; Bengio et al. 2013, arXiv:1308.3432; scheme of
    Zafrir et al. 2019, arXiv:1910.06188, with the backward product in integers, too).

    Parameters
    ----------
    x
        Contracts its last ``n`` dimensions.
    kernel
        Contracts its first ``n`` dimensions; of the dtype of ``x``.
    axes
        Logical axes of the kernel, so that its codes are what is gathered: a quarter of the bytes of float32.

    Returns
    -------
    y
        In the dtype of ``x``.

    Raises
    ------
    ValueError
        Sums of more terms than an int32 holds.
    """
    if (terms := max(math.prod(kernel.shape[:n]), math.prod(kernel.shape[n:]))) > TERMS:
        raise ValueError(f"products in int8 sum at most {TERMS:,} terms, not the {terms:,} of a kernel {kernel.shape}")
    return _product(x, kernel, n, axes)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x: Array, kernel: Array, n: int, axes: tuple[str, ...]) -> Array:
    return _forward(x, kernel, n, axes)[0]


def _forward(x: Array, kernel: Array, n: int, axes: tuple[str, ...]) -> tuple[Array, tuple[Array, Array, Array]]:
    codes, scales = encode(kernel, tuple(range(n)))
    codes = constrain_weight(codes, *axes) if axes else codes
    rows, row_scales = encode(x, tuple(range(x.ndim - n, x.ndim)))
    sums = jnp.tensordot(rows, codes, n, preferred_element_type=jnp.int32)
    outer = kernel.ndim - n
    columns = scales.reshape(scales.shape[n:])
    y = sums * (row_scales.reshape(*x.shape[: x.ndim - n], *(1,) * outer) * columns)
    return y.astype(x.dtype), (x, codes, columns)


def _backward(n: int, axes: tuple[str, ...], kept: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array]:
    x, codes, columns = kept
    outer, batch = codes.ndim - n, x.ndim - n
    # Scales of the columns go into the gradient before it is rounded, so that the sum over columns is one of integers.
    rows, row_scales = encode(dy.astype(jnp.float32) * columns, tuple(range(batch, dy.ndim)))
    contracted = (tuple(range(batch, dy.ndim)), tuple(range(n, n + outer)))
    sums = jax.lax.dot_general(rows, codes, (contracted, ((), ())), preferred_element_type=jnp.int32)
    dx = sums * row_scales.reshape(*x.shape[:batch], *(1,) * n)
    over_rows = tuple(range(batch))
    dkernel = jax.lax.dot_general(x, dy.astype(x.dtype), ((over_rows, over_rows), ((), ())))
    return dx.astype(x.dtype), dkernel.astype(x.dtype)


_product.defvjp(_forward, _backward)


def encode(x: Float[Array, "..."], axes: tuple[int, ...]) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """Codes of -128 to 127 and float32 scales, one for all values along ``axes``, which keep a size of 1."""
    greatest = jnp.max(jnp.abs(x.astype(jnp.float32)), axis=axes, keepdims=True)
    scales = jnp.where(greatest > 0, greatest / STEPS, 1.0)
    return jnp.clip(jnp.round(x / scales), -128, 127).astype(jnp.int8), scales
