"""Gemma-2 (Gemma Team 2024, arXiv:2408.00118) in Flax NNX.

Layers come in (local, global) pairs, stacked and scanned. Parameters keep the released values: nothing is folded in.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models.chunks import in_chunks
from c2s_jax.models.decoder import Block, Decoder, DecoderConfig, Layer, Mix, stack
from c2s_jax.models.linear import Linear, normal
from c2s_jax.models.remat import named
from c2s_jax.ops import Rotation, constrain, look_up, rotate, rotation

# Table 1 of the paper; the query scale is head_dim, but embed_dim / num_heads for 27B.
RELEASED: dict[str, dict[str, Any]] = {
    "2b": dict(embed_dim=2304, ffw_dim=9216, num_layers=26, num_heads=8, num_kv_heads=4, head_dim=256)
    | dict(vocab_size=256_000, query_pre_attn_scalar=256.0),
    "9b": dict(embed_dim=3584, ffw_dim=14336, num_layers=42, num_heads=16, num_kv_heads=8, head_dim=256)
    | dict(vocab_size=256_000, query_pre_attn_scalar=256.0),
    "27b": dict(embed_dim=4608, ffw_dim=36864, num_layers=46, num_heads=32, num_kv_heads=16, head_dim=128)
    | dict(vocab_size=256_000, query_pre_attn_scalar=144.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma2Config(DecoderConfig):
    """Architecture of one Gemma-2; the defaults that all released sizes share, sizes to be given.

    Attributes
    ----------
    mlp_chunks
        Parts into which the feed-forward dimension is cut: weights, activations and gradients of one are held at a
        time. Changes results by rounding alone (and what dropout of an adapter draws).
    """

    num_kv_heads: int
    head_dim: int
    query_pre_attn_scalar: float
    sliding_window: int = 4096
    attn_softcap: float | None = 50.0
    final_softcap: float | None = 30.0
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    mlp_chunks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mlp_chunks < 1 or self.ffw_dim % self.mlp_chunks:
            raise ValueError(f"model.mlp_chunks={self.mlp_chunks} must divide ffw_dim={self.ffw_dim}")
        if self.num_layers % 2:
            raise ValueError(f"model.num_layers must be even ((local, global) pairs), not {self.num_layers}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"model.num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim must be even for rotary positions, not {self.head_dim}")


class RMSNorm(nnx.Module):
    """Root-mean-square norm with weight ``1 + scale``, computed in float32."""

    def __init__(self, config: Gemma2Config):
        self.scale = nnx.Param(jnp.zeros((config.embed_dim,), config.param_dtype), axes=("norm",))
        self.eps = config.norm_eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * (1.0 + self.scale[...].astype(jnp.float32))).astype(x.dtype)


class Attention(nnx.Module):
    """Projections of grouped-query attention with rotary positions."""

    def __init__(self, config: Gemma2Config, rngs: nnx.Rngs):
        embed, head_dim = {"embed": config.embed_dim}, {"head_dim": config.head_dim}
        heads, kv_heads = {"heads": config.num_heads}, {"kv_heads": config.num_kv_heads}
        self.q = Linear(embed, heads | head_dim, param_dtype=config.param_dtype, rngs=rngs)
        self.k = Linear(embed, kv_heads | head_dim, param_dtype=config.param_dtype, rngs=rngs)
        self.v = Linear(embed, kv_heads | head_dim, param_dtype=config.param_dtype, rngs=rngs)
        self.o = Linear(heads | head_dim, embed, param_dtype=config.param_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], turn: Rotation, mix: Mix, key: Array | None) -> tuple[Array, Any]:
        q, k = (rotate(project(x, key), turn) for project in (self.q, self.k))
        q = constrain(q, "batch", "time", "heads", "head_dim")
        k = constrain(k, "batch", "time", "kv_heads", "head_dim")
        v = constrain(self.v(x, key), "batch", "time", "kv_heads", "head_dim")
        q, k, v = (named(*value) for value in (("q", q), ("k", k), ("v", v)))
        out, kept = mix(q, k, v)
        return named("attention", self.o(out, key)), kept


class FeedForward(nnx.Module):
    """GeGLU with tanh-approximated GELU."""

    def __init__(self, config: Gemma2Config, rngs: nnx.Rngs):
        embed, ffw = {"embed": config.embed_dim}, {"ffw": config.ffw_dim}
        self.gate = Linear(embed, ffw, param_dtype=config.param_dtype, rngs=rngs)
        self.up = Linear(embed, ffw, param_dtype=config.param_dtype, rngs=rngs)
        self.down = Linear(ffw, embed, param_dtype=config.param_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], key: Array | None) -> Float[Array, "B T D"]:
        gate, up = (constrain(product(x, key), "batch", "time", "ffw") for product in (self.gate, self.up))
        hidden = jax.nn.gelu(named("gate", gate), approximate=True) * named("up", up)
        return self.down(named("product", hidden), key)


class Gemma2Layer(Layer):
    """Pre- and post-normed attention and feed-forward blocks."""

    def __init__(self, config: Gemma2Config, window: int | None, rngs: nnx.Rngs):
        self.pre_attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs)
        self.post_attention_norm = RMSNorm(config)
        self.pre_ffw_norm = RMSNorm(config)
        self.ffw = FeedForward(config, rngs)
        self.post_ffw_norm = RMSNorm(config)
        self.window, self.softcap = window, config.attn_softcap
        self.scale = config.query_pre_attn_scalar**-0.5
        self.dropout, self.mlp_chunks = config.dropout, config.mlp_chunks

    def __call__(self, x: Array, turn: Rotation, mix: Mix, key: Array | None) -> tuple[Array, Any]:
        keys = (None, None) if key is None else jax.random.split(key)
        out, kept = self.attention(self.pre_attention_norm(x), turn, mix, key)
        x = self.residual(x, self.post_attention_norm(out), keys[0])
        update = in_chunks(self.ffw, self.mlp_chunks, self.pre_ffw_norm(x), key)
        return self.residual(x, self.post_ffw_norm(named("mlp", update)), keys[1]), kept


class LayerPair(Block):
    """A local (sliding-window) layer followed by a global one."""

    def __init__(self, config: Gemma2Config, rngs: nnx.Rngs):
        self.local_layer = Gemma2Layer(config, config.sliding_window, rngs)
        self.global_layer = Gemma2Layer(config, None, rngs)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.local_layer, self.global_layer


class Gemma2(Decoder):
    """Decoder-only language model with tied embeddings."""

    def __init__(self, config: Gemma2Config, *, rngs: nnx.Rngs):
        self.config = config
        shape = (config.vocab_size, config.embed_dim)
        self.embedding = normal(rngs, shape, ("vocab", "embed"), config.embed_dim, config.param_dtype)
        self.blocks = stack(lambda rngs: LayerPair(config, rngs), config.num_layers // 2, rngs)
        self.final_norm = RMSNorm(config)

    def embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Input embeddings, scaled by √D rounded to the activation dtype."""
        x = look_up(self.embedding[...], tokens, self.config.dtype)
        return x * jnp.asarray(math.sqrt(self.config.embed_dim), x.dtype)

    def rotation(self, positions: Int[Array, "B T"]) -> Rotation:
        """Of whole heads."""
        return rotation(positions, self.config.head_dim, theta=self.config.rope_theta)

    @property
    def output_table(self) -> Float[Array, "V D"]:
        """The embedding: it is tied."""
        return self.embedding[...]
