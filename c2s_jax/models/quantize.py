"""Frozen kernels in 8 or 4 bits under an adapter: QLoRA (Dettmers et al. 2023, arXiv:2305.14314), by ``qwix``.

``quantize`` replaces the kernels of a model's linear maps by codes and scales; embeddings, norms and biases stay. Each
product then decodes its kernel in the activation dtype and forgets it, in the backward pass, too. Nothing learns
through the codes: what trains is an adapter (``models.lora``), added before or after.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models.decoder import Decoder
from c2s_jax.models.linear import linears

KINDS = ("int8", "nf4")
TILE = 64
"""Block size of QLoRA (its section 3)."""

# Appendix E of the paper.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


@dataclasses.dataclass(frozen=True)
class Codec:
    """How a kernel is stored.

    Attributes
    ----------
    kind
        "int8", rounded to 256 even steps, or "nf4", the nearest of 16 quantiles of a normal distribution (appendix E).
    tile
        Neighbours along ``axis`` that share a scale in bfloat16, set by the greatest magnitude among them.
    axis
        The kernel's last input axis, counted from the end.
    ndim
        Dimensions of a kernel; one more is a stack of layers.
    """

    kind: str
    tile: int
    axis: int
    ndim: int

    @partial(jax.jit, static_argnums=0)
    def encode(self, kernel: Float[Array, "..."]) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
        """Codes and scales, a layer of a stack at a time.

        Returns
        -------
        codes
            int8 of the kernel's shape; or, for nf4, uint8 of half as many along ``axis``: the first half of a tile in
            the low bits, the second half in the high ones.
        scales
            bfloat16, one for each tile.
        """
        if kernel.ndim > self.ndim:
            return jax.lax.map(self.encode, kernel)
        axis = self._axis
        q = qwix.quantize(
            kernel.astype(jnp.float32),
            self.kind,
            channelwise_axes=[a for a in range(self.ndim) if a != axis],
            tiled_axes={axis: self.tile},
            scale_dtype=jnp.bfloat16,
        )
        if self.kind == "int8":
            return q.qvalue, q.scale
        first, second = jnp.split(self._tiles(q.qvalue.astype(jnp.uint8), q.scale), 2, axis + 1)
        packed = first | second << 4  # XLA's uint4 takes a whole byte on some platforms
        return packed.reshape(*kernel.shape[:axis], -1, *kernel.shape[axis + 1 :]), q.scale

    def decode(self, codes: Int[Array, "..."], scales: Float[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
        """The kernel of one layer, computed in ``dtype``."""
        tiles = self._tiles(codes, scales)
        if self.kind == "int8":
            values = tiles.astype(dtype)
        else:
            halves = [_normal_float(half, dtype) for half in (tiles & 15, tiles >> 4)]
            values = jnp.concatenate(halves, self._axis + 1)
        return (values * jnp.expand_dims(scales.astype(dtype), self._axis + 1)).reshape(self.shape(codes.shape))

    def product(self, x: Float[Array, "..."], codes: Int[Array, "..."], scales: Float[Array, "..."]) -> Array:
        """``x · kernel`` over the input axes of one layer; the backward pass decodes again."""
        n = self.ndim + self.axis + 1

        @jax.checkpoint
        def product(x: Array, codes: Array, scales: Array) -> Array:
            return jnp.tensordot(x, self.decode(codes, scales, x.dtype), n)

        return product(x, codes, scales)

    def shape(self, codes: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the kernel whose codes have this one."""
        at = len(codes) + self.axis
        return (*codes[:at], codes[at] * (2 if self.kind == "nf4" else 1), *codes[at + 1 :])

    @property
    def _axis(self) -> int:
        return self.axis % self.ndim

    def _tiles(self, codes: Int[Array, "..."], scales: Float[Array, "..."]) -> Int[Array, "..."]:
        """Codes of one layer with ``axis`` cut in two: tiles, and what is in each."""
        at = self._axis
        return codes.reshape(*codes.shape[:at], scales.shape[at], -1, *codes.shape[at + 1 :])


def _normal_float(codes: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Values of 4-bit codes, by comparisons: a gather would not be fused with what follows."""
    return jax.lax.select_n(codes.astype(jnp.int32), *(jnp.full(codes.shape, value, dtype) for value in NF4))


def quantize(model: Decoder, kind: str, *, tile: int = TILE) -> None:
    """Store the kernels of every linear map in fewer bits, one at a time, in place.

    A parameter then takes 1 + 2 / tile bytes (int8) or ½ + 2 / tile (nf4). The model may be abstract
    (``nnx.eval_shape``).

    Raises
    ------
    ValueError
        When ``kind`` is unknown, ``tile`` is odd (nf4) or does not divide an input axis, or the model is quantized
        already; names the linear map.
    """
    if kind not in KINDS:
        raise ValueError(f"quantize: kind {kind!r} is not one of {', '.join(KINDS)}")
    if tile < 1 or (kind == "nf4" and tile % 2):
        raise ValueError(f"quantize: the tile must be {'even' if kind == 'nf4' else 'positive'}, not {tile}")
    for path, linear in linears(model):
        name, n_out = ".".join(path), len(linear.out_axes)
        codec = Codec(kind, tile, -n_out - 1, len(linear.in_axes) + n_out)
        size, axis = linear.kernel.get_value().shape[codec.axis], linear.in_axes[-1]
        if linear.codec is not None:
            raise ValueError(f"{name} is quantized already")
        if size % tile:
            raise ValueError(f"{name}: choose a tile that divides the {size} values of {axis}, not {tile}")
        codes, scales = codec.encode(linear.kernel.get_value())
        linear.kernel, linear.codec = nnx.Param(codes, axes=(*linear.in_axes, *linear.out_axes)), codec
        linear.kernel_scale = nnx.Param(scales, axes=(*linear.in_axes[:-1], "tile", *linear.out_axes))


def dequantize(model: Decoder, dtype: str = "bfloat16") -> None:
    """Store kernels as numbers again, e.g. to merge an adapter or to export; in place.

    They are the rounded ones: what the adapter was trained on.
    """
    for _, linear in linears(model):
        if isinstance(linear.codec, Codec) and linear.kernel_scale is not None:
            stored = linear.kernel.get_value(), linear.kernel_scale.get_value()
            kernel = _decoded(linear.codec, *stored, dtype)
            linear.kernel = nnx.Param(kernel, axes=(*linear.in_axes, *linear.out_axes))
            linear.kernel_scale, linear.codec = nnx.data(None), None


@partial(jax.jit, static_argnums=(0, 3))
def _decoded(codec: Codec, codes: Array, scales: Array, dtype: str) -> Array:
    """All layers of a stack, one at a time."""
    if codes.ndim > codec.ndim:
        return jax.lax.map(lambda layer: _decoded(codec, *layer, dtype), (codes, scales))
    return codec.decode(codes, scales, jnp.dtype(dtype))
