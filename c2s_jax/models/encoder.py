"""What the encoders share: a scanned stack of post-normed transformer layers (Vaswani et al. 2017, arXiv:1706.03762).

Letters: B batch, T time, D model, F feed-forward, H heads, E head dim, L layers.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models.decoder import stack
from c2s_jax.models.layer_norm import LayerNorm
from c2s_jax.models.linear import Linear, normal

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What every encoder has.

    Attributes
    ----------
    activation
        "gelu" (exact), "gelu_tanh" or "relu".
    dtype, param_dtype
        Of activations and of parameters.
    """

    vocab_size: int
    embed_dim: int
    ffw_dim: int
    num_layers: int
    num_heads: int
    activation: str = "gelu"
    norm_eps: float = 1e-12
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim={self.embed_dim} must be a multiple of num_heads={self.num_heads}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is not one of {', '.join(ACTIVATIONS)}")


class EncoderLayer(nnx.Module):
    """Attention to every token of the row, then a feed-forward net; each is added to its input and normalised."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        embed, ffw = {"embed": config.embed_dim}, {"ffw": config.ffw_dim}
        heads = {"heads": config.num_heads, "head_dim": config.embed_dim // config.num_heads}
        linear: Any = partial(Linear, bias=True, param_dtype=config.param_dtype, rngs=rngs)
        self.q, self.k, self.v = linear(embed, heads), linear(embed, heads), linear(embed, heads)
        self.o = linear(heads, embed)
        self.attention_norm = norm(config)
        self.up, self.down = linear(embed, ffw), linear(ffw, embed)
        self.ffw_norm = norm(config)
        self.activation = ACTIVATIONS[config.activation]

    def __call__(self, x: Float[Array, "B T D"], lengths: Int[Array, "B"]) -> Float[Array, "B T D"]:
        mixed = jax.nn.dot_product_attention(self.q(x), self.k(x), self.v(x), key_value_seq_lengths=lengths)
        x = self.attention_norm(x + self.o(mixed))
        return self.ffw_norm(x + self.down(self.activation(self.up(x))))


class Encoder(nnx.Module):
    """Hidden states of tokens that all see each other. Rows are left-aligned: what lies beyond a row's length is seen
    by no token, and its own hidden states mean nothing.
    """

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = table(config, config.vocab_size, "vocab", rngs)
        self.embedding_norm = norm(config)
        self.layers = stack(lambda rngs: EncoderLayer(config, rngs), config.num_layers, rngs)

    def encode(self, x: Float[Array, "B T D"], lengths: Int[Array, "B"], layer: int | None) -> Float[Array, "B T D"]:
        """Hidden states after the first ``layer`` layers; None for all."""
        depth = self.config.num_layers
        count = depth if layer is None else layer
        if not 0 <= count <= depth:
            raise ValueError(f"layer={layer} is not one of 0 (the embeddings) to {depth} (the last layer)")
        graph, state = nnx.split(self.layers)
        state = jax.tree.map(lambda stacked: stacked[:count], state)

        def body(x: Array, parameters: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graph, parameters)(x, lengths), None

        return jax.lax.scan(body, x, state)[0]


def norm(config: EncoderConfig) -> LayerNorm:
    """A layer norm over the model's dimension."""
    return LayerNorm(config.embed_dim, eps=config.norm_eps, param_dtype=config.param_dtype)


def table(config: EncoderConfig, rows: int, axis: str | None, rngs: nnx.Rngs) -> nnx.Param:
    """An embedding table, [rows, D]."""
    shape, axes = (rows, config.embed_dim), (axis, "embed")
    return normal(rngs, shape, axes, config.embed_dim, config.param_dtype)  # type: ignore[arg-type]
