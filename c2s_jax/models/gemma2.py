"""Gemma-2 (Gemma Team 2024, arXiv:2408.00118) in Flax NNX.

Letters: B batch, T time, D model, F feed-forward, H heads, K kv heads, E head dim, V vocabulary, P layer pairs.
Layers come in (local, global) pairs, stacked and scanned. Parameters keep the released values: nothing is folded in.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models import cache as kv
from c2s_jax.ops import attend, constrain, rotate

REMAT_POLICIES: dict[str, Callable | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Gemma2Config:
    """Architecture of one Gemma-2; the defaults that all released sizes share, sizes to be given."""

    vocab_size: int
    embed_dim: int
    ffw_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_pre_attn_scalar: float
    sliding_window: int = 4096
    attn_softcap: float | None = 50.0
    final_softcap: float | None = 30.0
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    attention_chunk: int = 512

    def __post_init__(self) -> None:
        if self.num_layers % 2:
            raise ValueError(f"model.num_layers must be even ((local, global) pairs), not {self.num_layers}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"model.num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim must be even for rotary positions, not {self.head_dim}")
        if self.remat not in ("none", *REMAT_POLICIES):
            raise ValueError(f"model.remat={self.remat!r} is not one of none, {', '.join(REMAT_POLICIES)}")


class RMSNorm(nnx.Module):
    """Root-mean-square norm with weight ``1 + scale``, computed in float32."""

    def __init__(self, dim: int, config: Gemma2Config):
        self.scale = nnx.Param(jnp.zeros((dim,), config.param_dtype), axes=("norm",))
        self.eps = config.norm_eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * (1.0 + self.scale[...].astype(jnp.float32))).astype(x.dtype)


def _weight(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int, config: Gemma2Config
) -> nnx.Param:
    value = jax.random.truncated_normal(rngs.params(), -2, 2, shape, jnp.float32) / math.sqrt(fan_in)
    return nnx.Param(value.astype(config.param_dtype), axes=axes)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions; ``window`` None is global."""

    def __init__(self, config: Gemma2Config, window: int | None, rngs: nnx.Rngs):
        D, H, K, E = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim
        self.q = _weight(rngs, (D, H, E), ("embed", "heads", "head_dim"), D, config)
        self.k = _weight(rngs, (D, K, E), ("embed", "kv_heads", "head_dim"), D, config)
        self.v = _weight(rngs, (D, K, E), ("embed", "kv_heads", "head_dim"), D, config)
        self.o = _weight(rngs, (H, E, D), ("heads", "head_dim", "embed"), H * E, config)
        self.config, self.window = config, window

    def project(self, x: Float[Array, "B T D"], positions: Int[Array, "B T"]) -> tuple[Array, Array, Array]:
        """Rotated queries [B,T,H,E] and keys [B,T,K,E], and values [B,T,K,E]."""
        theta, dtype = self.config.rope_theta, x.dtype
        q, k, v = (jnp.einsum("BTD,DNE->BTNE", x, w[...].astype(dtype)) for w in (self.q, self.k, self.v))
        q = constrain(rotate(q, positions, theta=theta), "batch", "time", "heads", "head_dim")
        k = constrain(rotate(k, positions, theta=theta), "batch", "time", "kv_heads", "head_dim")
        return q, k, constrain(v, "batch", "time", "kv_heads", "head_dim")

    def combine(self, q: Array, k: Array, v: Array, positions: Any, segment_ids: Array | None) -> Float[Array, "B T D"]:
        """Attention of ``q`` over ``k``, ``v`` and the output projection."""
        c = self.config
        out = attend(
            q,
            k,
            v,
            positions=positions,
            segment_ids=segment_ids,
            window=self.window,
            softcap=c.attn_softcap,
            scale=c.query_pre_attn_scalar**-0.5,
            chunk=c.attention_chunk,
        )
        return jnp.einsum("BTHE,HED->BTD", out, self.o[...].astype(out.dtype))


class FeedForward(nnx.Module):
    """GeGLU with tanh-approximated GELU."""

    def __init__(self, config: Gemma2Config, rngs: nnx.Rngs):
        D, F = config.embed_dim, config.ffw_dim
        self.gate = _weight(rngs, (D, F), ("embed", "ffw"), D, config)
        self.up = _weight(rngs, (D, F), ("embed", "ffw"), D, config)
        self.down = _weight(rngs, (F, D), ("ffw", "embed"), F, config)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gate, up, down = (w[...].astype(x.dtype) for w in (self.gate, self.up, self.down))
        hidden = jax.nn.gelu(x @ gate, approximate=True) * (x @ up)
        return constrain(hidden, "batch", "time", "ffw") @ down


class Layer(nnx.Module):
    """Pre- and post-normed attention and feed-forward blocks."""

    def __init__(self, config: Gemma2Config, window: int | None, rngs: nnx.Rngs):
        self.pre_attention_norm = RMSNorm(config.embed_dim, config)
        self.attention = Attention(config, window, rngs)
        self.post_attention_norm = RMSNorm(config.embed_dim, config)
        self.pre_ffw_norm = RMSNorm(config.embed_dim, config)
        self.ffw = FeedForward(config, rngs)
        self.post_ffw_norm = RMSNorm(config.embed_dim, config)
        self.dropout = config.dropout

    def __call__(
        self, x: Array, positions: Array, segment_ids: Array | None, key: Array | None = None
    ) -> tuple[Array, kv.LayerCache]:
        """Full-sequence pass; also returns this layer's keys and values."""
        q, k, v = self.attention.project(self.pre_attention_norm(x), positions)
        out = self.attention.combine(q, k, v, positions, segment_ids)
        keys = (None, None) if key is None else jax.random.split(key)
        x = self._residual(x, self.post_attention_norm(out), keys[0])
        x = self._residual(x, self.post_ffw_norm(self.ffw(self.pre_ffw_norm(x))), keys[1])
        return constrain(x, "batch", "time", "embed"), kv.LayerCache(k, v)

    def step(
        self, x: Array, positions: Array, layer_cache: kv.LayerCache, cache_positions: Array, pair: Array
    ) -> tuple[Array, kv.LayerCache]:
        """One-token pass over the cache of layer pair ``pair``."""
        q, k, v = self.attention.project(self.pre_attention_norm(x), positions)
        layer_cache = kv.write(layer_cache, pair, positions[:, 0], k[:, 0], v[:, 0])
        keys, values = (jax.lax.dynamic_index_in_dim(c, pair, keepdims=False) for c in layer_cache)
        out = self.attention.combine(
            q, keys.astype(q.dtype), values.astype(q.dtype), (positions, cache_positions), None
        )
        x += self.post_attention_norm(out)
        return x + self.post_ffw_norm(self.ffw(self.pre_ffw_norm(x))), layer_cache

    def _residual(self, x: Array, update: Array, key: Array | None) -> Array:
        if key is not None and self.dropout:
            keep = jax.random.bernoulli(key, 1.0 - self.dropout, update.shape)
            update = jnp.where(keep, update / (1.0 - self.dropout), 0.0)
        return x + update


class LayerPair(nnx.Module):
    """A local (sliding-window) layer followed by a global one."""

    def __init__(self, config: Gemma2Config, rngs: nnx.Rngs):
        self.local_layer = Layer(config, config.sliding_window, rngs)
        self.global_layer = Layer(config, None, rngs)


class Gemma2(nnx.Module):
    """Decoder-only language model with tied embeddings."""

    def __init__(self, config: Gemma2Config, *, rngs: nnx.Rngs):
        self.config = config
        V, D = config.vocab_size, config.embed_dim
        self.embedding = _weight(rngs, (V, D), ("vocab", "embed"), D, config)

        @nnx.split_rngs(splits=config.num_layers // 2)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make_pairs(rngs: nnx.Rngs) -> LayerPair:
            return LayerPair(config, rngs)

        self.pairs = make_pairs(rngs)
        self.final_norm = RMSNorm(D, config)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Next-token logits (float32). Without ``positions`` each row is one example that starts at 0."""
        return self.logits(self.hidden(tokens, positions, segment_ids))

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        *,
        dropout_key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """Final hidden states, after the last norm. ``dropout_key`` switches dropout on."""
        return self._forward(tokens, positions, segment_ids, dropout_key, keep_cache=False)[0]

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Soft-capped float32 logits of final hidden states."""
        table = self.embedding[...].astype(hidden.dtype)
        logits = jnp.einsum("BTD,VD->BTV", hidden, table, preferred_element_type=jnp.float32)
        cap = self.config.final_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def prefill(self, tokens: Int[Array, "B T"], lengths: Int[Array, "B"], capacity: int) -> tuple[Array, kv.Cache]:
        """Read left-aligned prompts padded to T: hidden state [B, D] of each last token, cache of ``capacity``."""
        x, (local, globals_) = self._forward(tokens, None, None, None, keep_cache=True)
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]
        return last, kv.from_prefill(local, globals_, lengths, self.config.sliding_window, capacity)

    def step(self, tokens: Int[Array, "B"], positions: Int[Array, "B"], cache: kv.Cache) -> tuple[Array, kv.Cache]:
        """Decode one token a row: hidden states [B, D] and the cache with this token in it."""
        c = self.config
        rows = jnp.arange(tokens.shape[0])
        window, capacity = cache.local_positions.shape[1], cache.global_positions.shape[1]
        local_positions = cache.local_positions.at[rows, positions % window].set(positions)
        global_positions = cache.global_positions.at[rows, positions % capacity].set(positions)
        graph, state = nnx.split(self.pairs)
        at = positions[:, None]

        def body(carry: Any, xs: Any) -> tuple[Any, None]:
            x, local, globals_ = carry
            layer, pair = nnx.merge(graph, xs[0]), xs[1]
            x, local = layer.local_layer.step(x, at, local, local_positions, pair)
            x, globals_ = layer.global_layer.step(x, at, globals_, global_positions, pair)
            return (x, local, globals_), None

        carry = (self._embed(tokens[:, None]), cache.local, cache.globals)
        (x, local, globals_), _ = jax.lax.scan(body, carry, (state, jnp.arange(c.num_layers // 2)))
        return self.final_norm(x)[:, 0], kv.Cache(local, globals_, local_positions, global_positions)

    def _embed(self, tokens: Array) -> Array:
        x = self.embedding[...][tokens].astype(self.config.dtype)
        return x * jnp.asarray(math.sqrt(self.config.embed_dim), x.dtype)

    def _forward(
        self,
        tokens: Array,
        positions: Array | None,
        segment_ids: Array | None,
        dropout_key: Array | None,
        *,
        keep_cache: bool,
    ) -> tuple[Array, Any]:
        c = self.config
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        graph, state = nnx.split(self.pairs)
        pairs = c.num_layers // 2
        keys = None if dropout_key is None else jax.random.split(dropout_key, (pairs, 2))

        def body(x: Array, xs: Any) -> tuple[Array, Any]:
            pair = nnx.merge(graph, xs[0])
            k = (None, None) if xs[1] is None else (xs[1][0], xs[1][1])
            x, local = pair.local_layer(x, positions, segment_ids, k[0])
            x, globals_ = pair.global_layer(x, positions, segment_ids, k[1])
            return x, (local, globals_) if keep_cache else None

        if c.remat != "none":
            body = jax.checkpoint(body, policy=REMAT_POLICIES[c.remat], prevent_cse=False)
        x = constrain(self._embed(tokens), "batch", "time", "embed")
        x, caches = jax.lax.scan(body, x, (state, keys))
        return self.final_norm(x), caches


def num_parameters(model: nnx.Module | nnx.State) -> int:
    """Number of parameters of a model or of its state, concrete or abstract (``nnx.eval_shape``)."""
    return sum(
        math.prod(leaf.shape)
        for leaf in jax.tree.leaves(model if isinstance(model, nnx.State) else nnx.state(model, nnx.Param))
    )
