"""GPT-NeoX (Black et al. 2022, arXiv:2204.06745) in Flax NNX: the architecture of Pythia (arXiv:2304.01373)."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models.decoder import Decoder, DecoderConfig, Layer, Mix, stack
from c2s_jax.models.layer_norm import LayerNorm
from c2s_jax.models.linear import Linear, normal
from c2s_jax.models.remat import named
from c2s_jax.ops import Rotation, constrain, look_up, rotate, rotation

# Pythia, table 1 of its paper; the vocabulary is padded beyond the tokenizer's 50,277 pieces.
RELEASED: dict[str, dict[str, Any]] = {
    "160m": dict(vocab_size=50_304, embed_dim=768, ffw_dim=3072, num_layers=12, num_heads=12),
    "410m": dict(vocab_size=50_304, embed_dim=1024, ffw_dim=4096, num_layers=24, num_heads=16),
    "1b": dict(vocab_size=50_304, embed_dim=2048, ffw_dim=8192, num_layers=16, num_heads=8),
}

ACTIVATIONS = {"gelu": False, "gelu_tanh": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTNeoXConfig(DecoderConfig):
    """Architecture of one GPT-NeoX; the defaults that all Pythia sizes share, sizes to be given.

    Attributes
    ----------
    rotary_fraction
        Share of each head's dimensions that are rotated, the first ones.
    rope_scale
        Linear scaling of positions: angles are those of ``position / rope_scale`` (arXiv:2306.15595).
    parallel_residual
        Whether attention and feed-forward read the same input.
    activation
        "gelu" (exact) or "gelu_tanh".
    """

    rotary_fraction: float = 0.25
    rope_theta: float = 10_000.0
    rope_scale: float = 1.0
    parallel_residual: bool = True
    activation: str = "gelu"
    norm_eps: float = 1e-5

    final_softcap: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % self.num_heads:
            raise ValueError(f"model.embed_dim={self.embed_dim} must be a multiple of num_heads={self.num_heads}")
        if self.rotary_dim < 2 or self.rotary_dim % 2 or self.rotary_fraction > 1:
            raise ValueError(
                f"model.rotary_fraction={self.rotary_fraction} must rotate an even number of the {self.head_dim} "
                f"dimensions of a head, at least two; it is {self.rotary_dim}"
            )
        if self.rope_theta <= 0 or self.rope_scale <= 0:
            raise ValueError(f"model.rope_theta={self.rope_theta} and rope_scale={self.rope_scale} must be positive")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"model.activation={self.activation!r} is not one of {', '.join(ACTIVATIONS)}")

    @property
    def head_dim(self) -> int:
        """Dimensions of a head."""
        return self.embed_dim // self.num_heads

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that are rotated."""
        return int(self.head_dim * self.rotary_fraction)


def _norm(config: GPTNeoXConfig) -> LayerNorm:
    return LayerNorm(config.embed_dim, eps=config.norm_eps, param_dtype=config.param_dtype)


class Attention(nnx.Module):
    """Projections of multi-head attention; queries, keys and values are one matrix, as released."""

    def __init__(self, config: GPTNeoXConfig, rngs: nnx.Rngs):
        embed, head_dim = {"embed": config.embed_dim}, {"head_dim": config.head_dim}
        heads = {"heads": config.num_heads}
        self.qkv = Linear(embed, heads | {"qkv": 3} | head_dim, bias=True, param_dtype=config.param_dtype, rngs=rngs)
        self.o = Linear(heads | head_dim, embed, bias=True, param_dtype=config.param_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], turn: Rotation, mix: Mix, key: Array | None) -> tuple[Array, Any]:
        q, k, v = jnp.unstack(self.qkv(x, key), axis=-2)
        q, k = rotate(q, turn), rotate(k, turn)
        q, k, v = (constrain(part, "batch", "time", "heads", "head_dim") for part in (q, k, v))
        q, k, v = (named(*value) for value in (("q", q), ("k", k), ("v", v)))
        out, kept = mix(q, k, v)
        return named("attention", self.o(out, key)), kept


class FeedForward(nnx.Module):
    """Two linear maps around a GELU."""

    def __init__(self, config: GPTNeoXConfig, rngs: nnx.Rngs):
        embed, ffw = {"embed": config.embed_dim}, {"ffw": config.ffw_dim}
        self.up = Linear(embed, ffw, bias=True, param_dtype=config.param_dtype, rngs=rngs)
        self.down = Linear(ffw, embed, bias=True, param_dtype=config.param_dtype, rngs=rngs)
        self.approximate = ACTIVATIONS[config.activation]

    def __call__(self, x: Float[Array, "B T D"], key: Array | None) -> Float[Array, "B T D"]:
        up = named("up", constrain(self.up(x, key), "batch", "time", "ffw"))
        return named("mlp", self.down(named("product", jax.nn.gelu(up, approximate=self.approximate)), key))


class GPTNeoXLayer(Layer):
    """Pre-normed attention and feed-forward, side by side or one after the other."""

    window = None
    softcap = None

    def __init__(self, config: GPTNeoXConfig, rngs: nnx.Rngs):
        self.attention_norm = _norm(config)
        self.attention = Attention(config, rngs)
        self.ffw_norm = _norm(config)
        self.ffw = FeedForward(config, rngs)
        self.scale = config.head_dim**-0.5
        self.dropout, self.parallel = config.dropout, config.parallel_residual

    def __call__(self, x: Array, turn: Rotation, mix: Mix, key: Array | None) -> tuple[Array, Any]:
        keys = (None, None) if key is None else jax.random.split(key)
        out, kept = self.attention(self.attention_norm(x), turn, mix, key)
        after = self.residual(x, out, keys[0])
        update = self.ffw(self.ffw_norm(x if self.parallel else after), key)
        return self.residual(after, update, keys[1]), kept


class GPTNeoX(Decoder):
    """Decoder-only language model with an output table of its own."""

    def __init__(self, config: GPTNeoXConfig, *, rngs: nnx.Rngs):
        self.config = config
        shape, axes = (config.vocab_size, config.embed_dim), ("vocab", "embed")
        self.embedding = normal(rngs, shape, axes, config.embed_dim, config.param_dtype)
        self.unembedding = normal(rngs, shape, axes, config.embed_dim, config.param_dtype)
        self.blocks = stack(lambda rngs: GPTNeoXLayer(config, rngs), config.num_layers, rngs)
        self.final_norm = _norm(config)

    def embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Input embeddings in the activation dtype."""
        return look_up(self.embedding[...], tokens, self.config.dtype)

    def rotation(self, positions: Int[Array, "B T"]) -> Rotation:
        """Of the leading ``rotary_dim`` dimensions of heads."""
        c = self.config
        return rotation(positions, c.rotary_dim, theta=c.rope_theta, position_scale=c.rope_scale)

    @property
    def output_table(self) -> Float[Array, "V D"]:
        """The unembedding: it is not tied."""
        return self.unembedding[...]
