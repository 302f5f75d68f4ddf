"""Low-rank adaptation (LoRA; Hu et al. 2021, arXiv:2106.09685) of a model's linear maps.

``add`` puts an adapter beside the kernels, ``merge`` adds it to them; ``models.peft`` reads and writes adapter files.
Base and adapter are separate states, so one base in memory serves many adapters. All that have the same targets, rank
and scale run in the same compiled program::

    peft.load_adapter(model, "pathology")
    graphdef, base, pathology = lora.split(model)
    peft.load_adapter(model, "immunology")
    immunology = lora.adapter_state(model)

    sampler = Sampler(graphdef, ...)
    sampler(nnx.merge_state(base, pathology), prompts, ...)
    sampler(nnx.merge_state(base, immunology), prompts, ...)  # nothing is compiled again
"""

import dataclasses
import math
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from c2s_jax.models.decoder import Decoder
from c2s_jax.models.linear import Linear, linears

ALL = "all"


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """What is adapted and how.

    Attributes
    ----------
    rank
        Inner dimension of the update.
    alpha
        The update is scaled by ``alpha / rank``.
    dropout
        Of the update's input, in training.
    targets
        Names of linear maps (Gemma-2: q, k, v, o, gate, up, down; GPT-NeoX: qkv, o, up, down), or "all".
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: Sequence[str] = (ALL,)

    def __post_init__(self) -> None:
        targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        object.__setattr__(self, "targets", targets)
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or not self.targets:
            raise ValueError(f"lora: need rank >= 1, alpha > 0, 0 <= dropout < 1 and some targets; got {self}")


def adapted(model: Decoder) -> list[Linear]:
    """The linear maps that carry an update."""
    return [linear for _, linear in linears(model) if linear.lora_a is not None]


def add(model: Decoder, config: LoRAConfig, rngs: nnx.Rngs) -> None:
    """Put a zero update beside every target: ``lora_a`` is drawn, ``lora_b`` is zero. Both are float32.

    Raises
    ------
    ValueError
        When the model has no such target, or carries an adapter already.
    """
    if adapted(model):
        raise ValueError("the model carries an adapter already; merge or remove it first")
    names = sorted({path[-1] for path, _ in linears(model)})
    if unknown := [t for t in config.targets if t not in (*names, ALL)]:
        raise ValueError(f"lora.targets: the model has no {', '.join(unknown)}; it has {', '.join(names)}")
    for path, linear in linears(model):
        if path[-1] not in config.targets and ALL not in config.targets:
            continue
        depth, n_in, n_out = shapes(linear)
        bound = math.prod(n_in) ** -0.5
        a = jax.random.uniform(rngs.params(), (*depth, *n_in, config.rank), jnp.float32, -bound, bound)
        b = jnp.zeros((*depth, config.rank, *n_out), jnp.float32)
        attach(path[-1], linear, a, b, scale=config.alpha / config.rank, dropout=config.dropout)


def shapes(linear: Linear) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A kernel's shape in three parts: of the stack of layers, of the input and of the output."""
    shape, n_out = linear.kernel_shape, len(linear.out_axes)
    n_in = len(linear.in_axes) + n_out
    return shape[:-n_in], shape[-n_in:-n_out], shape[-n_out:]


def attach(
    name: str,
    linear: Linear,
    a: Float[Array, "... rank"],
    b: Float[Array, "rank ..."],
    *,
    scale: float,
    dropout: float = 0.0,
) -> None:
    """Put an update beside one linear map, in place of any that is there.

    Parameters
    ----------
    name
        Of the map within its layer.
    a, b
        Of shape ``depth + in_shape + (rank,)`` and ``depth + (rank,) + out_shape``; see ``shapes``.
    """
    linear.lora_a = nnx.LoRAParam(a, axes=(*linear.in_axes, "lora_rank"))
    # The scale is part of the adapter's state: another adapter in the same model brings its own.
    linear.lora_b = nnx.LoRAParam(b, axes=("lora_rank", *linear.out_axes), scale=scale)
    # By name, not 0, 1, ...: folding these in gives the keys of jax.random.split, which other dropout uses.
    linear.lora_dropout, linear.lora_salt = dropout, zlib.crc32(name.encode()) >> 1


def remove(model: Decoder) -> None:
    """Take the adapter away; the base stays as it is."""
    for linear in adapted(model):
        linear.lora_a = linear.lora_b = nnx.data(None)
        linear.lora_dropout, linear.lora_salt = 0.0, 0


def merge(model: Decoder) -> None:
    """Add every update to its kernel (in float32, rounded once to the kernel's dtype) and take it away.

    A state taken from the model before keeps its values.

    Raises
    ------
    ValueError
        When kernels are quantized (``models.quantize.dequantize`` makes them numbers again).
    """
    if any(linear.codec is not None for linear in adapted(model)):
        raise ValueError("the model is quantized; dequantize it before an adapter is merged")
    for linear in adapted(model):
        a, b = linear.lora_a, linear.lora_b
        assert a is not None
        assert b is not None
        kernel = _merged(linear.kernel.get_value(), a.get_value(), b.get_value(), b.get_metadata("scale"))
        linear.kernel = nnx.Param(kernel, **linear.kernel.get_metadata())
    remove(model)


@jax.jit
def _merged(kernel: Array, a: Array, b: Array, scale: Float[Array, ""]) -> Array:
    """``kernel + scale · a · b``, one layer of a stack at a time."""
    if a.ndim + b.ndim > kernel.ndim + 2:
        return jax.lax.map(lambda layer: _merged(*layer, scale), (kernel, a, b))
    update = scale * jnp.tensordot(a, b, 1, precision="highest")
    return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)


def split(model: Decoder) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Graph definition, base and adapter; ``nnx.merge(graphdef, base, adapter)`` is the model again."""
    return nnx.graphdef(model), _snapshot(nnx.state(model, nnx.Not(nnx.LoRAParam))), adapter_state(model)


def adapter_state(model: Decoder) -> nnx.State:
    """The adapter alone; see the module's docstring for swapping adapters."""
    return _snapshot(nnx.state(model, nnx.LoRAParam))


def _snapshot(state: nnx.State) -> nnx.State:
    """The same arrays in variables of their own, which changes of the model do not reach."""
    return jax.tree.map(lambda x: x, state)
