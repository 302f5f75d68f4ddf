"""A linear map between named axes, with an optional bias and an optional low-rank update."""

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from c2s_jax.ops import constrain_weight, int8_product
from c2s_jax.ops.constrain import TIME, shards

PRODUCTS = ("float", "int8")


class Codec(Protocol):
    """How a kernel is stored in fewer bits; see ``models.quantize``."""

    @property
    def kind(self) -> str: ...

    def product(self, x: Array, codes: Array, scales: Array) -> Array:
        """``x · kernel``."""
        ...

    def shape(self, codes: tuple[int, ...]) -> tuple[int, ...]:
        """The kernel's shape, from that of its codes."""
        ...


class Linear(nnx.Module):
    """``y = x · kernel + bias``, contracting the last ``len(in_axes)`` dimensions of x.

    Parameters
    ----------
    in_axes, out_axes
        Sizes by logical axis name, e.g. ``{"embed": D}`` and ``{"heads": H, "head_dim": E}``; the kernel has the shape
        of one after the other.
    bias
        Whether there is a bias of the shape of ``out_axes``.
    param_dtype
        Of the parameters; the product is computed in x's dtype.

    Attributes
    ----------
    products
        "int8" multiplies 8-bit integers (``ops.int8_product``), to train faster; "float" does not.

    Notes
    -----
    A low-rank update (Hu et al. 2021, arXiv:2106.09685) adds ``scale · (x · lora_a) · lora_b``; ``models.lora`` puts it
    there. ``models.quantize`` replaces the kernel by codes and ``kernel_scale``. In a stack of layers every parameter
    has one leading dimension more.
    """

    def __init__(
        self,
        in_axes: Mapping[str, int],
        out_axes: Mapping[str, int],
        *,
        bias: bool = False,
        param_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.in_axes, self.out_axes = tuple(in_axes), tuple(out_axes)
        shape = (*in_axes.values(), *out_axes.values())
        fan_in = math.prod(in_axes.values())
        self.kernel = normal(rngs, shape, (*in_axes, *out_axes), fan_in, param_dtype)
        self.bias: nnx.Param | None = nnx.data(None)
        if bias:
            self.bias = nnx.Param(jnp.zeros(tuple(out_axes.values()), param_dtype), axes=self.out_axes)
        self.kernel_scale: nnx.Param | None = nnx.data(None)
        self.codec: Codec | None = None
        self.products = "float"
        self.lora_a: nnx.LoRAParam | None = nnx.data(None)
        self.lora_b: nnx.LoRAParam | None = nnx.data(None)
        self.lora_dropout, self.lora_salt = 0.0, 0

    def __call__(self, x: Float[Array, "..."], key: Array | None = None) -> Float[Array, "..."]:
        """Apply to the last dimensions of ``x``; ``key`` switches the low-rank update's dropout on."""
        n = len(self.in_axes)
        if self.codec is not None and self.kernel_scale is not None:
            y = self.codec.product(x, self.kernel[...], self.kernel_scale[...])
        else:
            # Cast before it is gathered: half the bytes travel.
            axes = (*self.in_axes, *self.out_axes)
            kernel = constrain_weight(self.kernel[...].astype(x.dtype), *axes)
            if self.products == "int8":
                y = int8_product(x, kernel, n, axes)
            else:
                y = product(x, kernel, n)
        if self.lora_a is not None and self.lora_b is not None:
            z = x
            if key is not None and self.lora_dropout:
                z = dropout(x, self.lora_dropout, jax.random.fold_in(key, self.lora_salt))
            down = product(z, self.lora_a[...].astype(x.dtype), n)
            scale = self.lora_b.get_metadata("scale")
            y += scale * product(down, self.lora_b[...].astype(x.dtype), 1)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel, however it is stored."""
        shape = self.kernel.get_value().shape
        return shape if self.codec is None else self.codec.shape(shape)


def product(x: Float[Array, "..."], kernel: Float[Array, "..."], n: int) -> Float[Array, "..."]:
    """``x · kernel`` over the last ``n`` dimensions of ``x``, the first of ``kernel``.

    A device that holds all rows takes them as one matrix: in the kernel's gradient, which sums over rows and time, XLA
    for CPUs would transpose an operand in memory first, and take more than twice as long. Spread dimensions stay apart.
    """
    if shards("batch") > 1 or shards(TIME) > 1:
        return jnp.tensordot(x, kernel, n)
    lead, out = x.shape[: x.ndim - n], kernel.shape[n:]
    size = math.prod(kernel.shape[:n])
    return (x.reshape(-1, size) @ kernel.reshape(size, -1)).reshape(*lead, *out)


def linears(module: nnx.Module) -> Iterator[tuple[tuple[str, ...], Linear]]:
    """Every linear map of a model, or of a part of it, with its path."""
    for path, part in nnx.iter_modules(module):
        if isinstance(part, Linear):
            yield tuple(map(str, path)), part


def check_products(products: str) -> None:
    """Refuse what is not one of ``PRODUCTS``."""
    if products not in PRODUCTS:
        raise ValueError(f"products={products!r} is not one of {', '.join(PRODUCTS)}")


def set_products(module: nnx.Module, products: str) -> None:
    """Have every linear map multiply so; one of ``PRODUCTS``."""
    for _, linear in linears(module):
        linear.products = products


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int, dtype: str) -> nnx.Param:
    """A parameter drawn from a normal distribution of scale ``fan_in ** -0.5``, cut off at twice that."""
    value = jax.random.truncated_normal(rngs.params(), -2, 2, shape, jnp.float32) / math.sqrt(fan_in)
    return nnx.Param(value.astype(dtype), axes=axes)


def dropout(x: Array, rate: float, key: Array) -> Array:
    """Zero a share of the elements and scale the rest up."""
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)
