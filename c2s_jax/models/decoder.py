"""What the language models share: a scanned stack of blocks, a full pass, and decoding with a cache.

Letters: B batch, T time, D model, F feed-forward, H heads, K kv heads, E head dim, V vocabulary, P blocks.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models import cache as kv
from c2s_jax.models import remat
from c2s_jax.models.linear import dropout
from c2s_jax.ops import KeyPart, Rotation, attend, attend_parts, constrain

NAME_THEIR_OUTPUT = ("splash", "splash_interpret")  # and, under the same name, what their backward pass needs

M = TypeVar("M", bound=nnx.Module)

Mix = Callable[[Array, Array, Array], tuple[Array, Any]]
"""Attention of a layer's queries over what they may see: (q, k, v) -> (mixed values [B,T,H,E], what to keep)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What every architecture has.

    Attributes
    ----------
    dropout
        Of residual updates, in training.
    dtype, param_dtype
        Of activations and of parameters.
    remat
        What the backward pass finds in memory: "none" (everything), a policy or a specification of ``models.remat``.
    remat_scope
        What is recomputed at once: one "layer", a whole "block" (Gemma-2's pairs of layers; half as many inputs are
        kept, but more of the rest at the same time), or "both": the inputs of blocks are kept, and those of
        layers recomputed from them, at the price of one more forward pass.
    attention
        Backend of ``ops.attend``; a run's "auto" is resolved before a model is made.
    attention_chunk
        Queries a chunk in the "xla" backend.
    """

    vocab_size: int
    embed_dim: int
    ffw_dim: int
    num_layers: int
    num_heads: int
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    remat_scope: str = "layer"
    attention: str = "xla"
    attention_chunk: int = 512

    def __post_init__(self) -> None:
        numbered = "." in remat.POLICIES.get(self.remat, self.remat)
        if self.remat != "none":
            remat.parse(self.remat)
        if numbered and self.remat_scope != "layer":
            raise ValueError(f'model.remat={self.remat!r} tells layers apart, which needs model.remat_scope="layer"')
        if self.remat_scope not in remat.SCOPES:
            raise ValueError(f"model.remat_scope={self.remat_scope!r} is not one of {', '.join(remat.SCOPES)}")


class Block(nnx.Module):
    """The repeating unit of the stack: one layer, or several different ones."""

    @property
    def layers(self) -> tuple["Layer", ...]:
        """In the order in which they are applied."""
        raise NotImplementedError


class Layer(Block):
    """One transformer layer; architectures write ``__call__`` once, for the full pass and for decoding."""

    window: int | None
    """Keys a query sees, itself included; None for all."""
    softcap: float | None
    """Soft cap of attention scores."""
    scale: float
    """Multiplies q · k."""
    dropout: float

    def __call__(self, x: Array, turn: Rotation, mix: Mix, key: Array | None) -> tuple[Array, Any]:
        """Hidden states after the layer, and what ``mix`` gave to keep."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple["Layer", ...]:
        """A layer alone is a block, too."""
        return (self,)

    def attend(self, q: Array, k: Array, v: Array, **options: Any) -> Float[Array, "B T H E"]:
        """``ops.attend`` with this layer's window, soft cap and scale."""
        return attend(q, k, v, window=self.window, softcap=self.softcap, scale=self.scale, **options)

    def attend_parts(self, q: Array, parts: tuple[KeyPart, ...], positions: Array) -> Float[Array, "B T H E"]:
        """``ops.attend_parts`` with this layer's window, soft cap and scale."""
        options: Any = dict(window=self.window, softcap=self.softcap, scale=self.scale)
        return attend_parts(q, parts, positions=positions, **options)

    def residual(self, x: Array, update: Array, key: Array | None) -> Array:
        """``x`` plus the update, which dropout may thin."""
        return x + (dropout(update, self.dropout, key) if key is not None and self.dropout else update)


class Decoder(nnx.Module):
    """A decoder-only language model over a stack of equal blocks.

    Architectures set ``config``, ``embedding``, ``blocks`` (by ``stack``) and ``final_norm``, and say how tokens are
    embedded, how positions turn queries and keys, and which table gives the logits.
    """

    config: Any
    embedding: nnx.Param
    blocks: Block
    final_norm: nnx.Module

    def embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Input embeddings in the activation dtype."""
        raise NotImplementedError

    def rotation(self, positions: Int[Array, "B T"]) -> Rotation:
        """By how much queries and keys of all layers turn."""
        raise NotImplementedError

    @property
    def output_table(self) -> Float[Array, "V D"]:
        """Parameters that give a logit a token."""
        raise NotImplementedError

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

    def hidden_after(self, tokens: Int[Array, "B T"], layers: int) -> Float[Array, "B T D"]:
        """Hidden states after the first ``layers`` layers, 0 being the embeddings.

        As in transformers' ``hidden_states``, the last norm is applied after the last layer only.
        """
        if layers == self.config.num_layers:
            return self.hidden(tokens)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        graph, state = nnx.split(self.blocks)
        whole, rest = divmod(layers, len(self.blocks.layers))
        turn = self.rotation(positions)

        def through(x: Array, part: nnx.State, count: int | None = None) -> Array:
            for layer in nnx.merge(graph, part).layers[:count]:
                x, _ = layer(x, turn, self._over_sequence(layer, positions, None), None)
                x = constrain(x, "batch", "time", "embed")
            return x

        x = constrain(self.embed(tokens), "batch", "time", "embed")
        x, _ = jax.lax.scan(lambda x, part: (through(x, part), None), x, jax.tree.map(lambda p: p[:whole], state))
        return through(x, jax.tree.map(lambda p: p[whole], state), rest) if rest else x

    def logits(self, hidden: Float[Array, "B T D"], table: Float[Array, "V D"] | None = None) -> Float[Array, "B T V"]:
        """Soft-capped float32 logits of final hidden states, of the tokens in ``table`` (by default all)."""
        table = (self.output_table if table is None else table).astype(hidden.dtype)
        logits = jnp.einsum("BTD,VD->BTV", hidden, table, preferred_element_type=jnp.float32)
        cap = self.config.final_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def prefill(
        self, tokens: Int[Array, "N T"], lengths: Int[Array, "N"], parts: int = 1
    ) -> tuple[Float[Array, "N D"], kv.Cache]:
        """Read left-aligned prompts padded to T: hidden state of each last token, and what the prompts leave.

        ``parts`` is how many parts of the blocks ``extend`` will be given.
        """
        x, kept = self._forward(tokens, None, None, None, keep_cache=True)
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]
        layers = zip(self.blocks.layers, kept)
        return last, tuple(kv.from_prefill(k, v, lengths, layer.window, parts) for layer, (k, v) in layers)

    def room(self, prompts: kv.Cache, rows: int, tokens: int, at_once: int = 1) -> kv.Cache:
        """Empty cache for ``tokens`` tokens a row after the prompts, of which ``extend`` gets ``at_once`` a pass."""
        layers = zip(self.blocks.layers, prompts)
        return tuple(kv.empty(prompt, rows, layer.window, tokens, at_once) for layer, prompt in layers)

    def extend(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        prompts: kv.Cache,
        cache: kv.Cache | None = None,
        index: Int[Array, "..."] | int = 0,
        parts: list[nnx.State] | None = None,
    ) -> tuple[Float[Array, "B T D"], kv.Cache | None]:
        """Read T more tokens a row: their hidden states, and the cache with these tokens in it.

        Parameters
        ----------
        tokens, positions
            Of B = N · n rows, n after each prompt.
        prompts
            From ``prefill`` of the N prompts.
        cache
            From ``room``; None when the tokens follow the prompts directly and need not be kept.
        index
            Which token after the prompt the first is: one number for all rows, or one a row, [B].
        parts
            The blocks' parameters as ``parts`` gives them; None for the whole stack.
        """
        index = jnp.asarray(index, jnp.int32)
        held = [positions if cache is None else kv.hold(c, index, positions) for c in cache or prompts]
        graph, whole = nnx.split(self.blocks)
        # The barrier keeps the compiler from making sines and cosines anew for every head of every layer.
        turn = jax.lax.optimization_barrier(self.rotation(positions))

        def body(carry: Any, xs: Any) -> tuple[Any, None]:
            (x, own), (block_state, number, shared) = carry, xs
            block, kept = nnx.merge(graph, block_state), []
            for layer, read, pair, at, slots in zip(block.layers, shared, own, prompts, held):
                mix = self._over_cache(
                    layer, positions, KeyPart(read.k, read.v, at.positions), pair, number, index, slots
                )
                x, pair = layer(x, turn, mix, None)
                kept.append(pair)
            return (x, kept), None

        x, done = self.embed(tokens), []
        pieces = parts or [whole]
        own = [[None] * len(prompts)] * len(pieces) if cache is None else list(zip(*(c.kv for c in cache)))
        for part, shared, pairs in zip(pieces, zip(*(c.kv for c in prompts)), own):
            depth = shared[0].k.shape[0]
            (x, kept), _ = jax.lax.scan(body, (x, list(pairs)), (part, jnp.arange(depth), shared))
            done.append(kept)
        x = self.final_norm(x)
        return x, None if cache is None else tuple(map(kv.LayerCache, zip(*done), held))

    def parts(self, count: int) -> list[nnx.State]:
        """The blocks' parameters as ``count`` stacks of equally many blocks, for ``extend``."""
        state, size = nnx.state(self.blocks), self.depth // count
        starts = range(0, self.depth, size)
        return [jax.tree.map(partial(jax.lax.slice_in_dim, start_index=i, limit_index=i + size), state) for i in starts]

    @property
    def depth(self) -> int:
        """Blocks in the stack."""
        return self.config.num_layers // len(self.blocks.layers)

    def _forward(
        self,
        tokens: Array,
        positions: Array | None,
        segment_ids: Array | None,
        dropout_key: Array | None,
        *,
        keep_cache: bool,
    ) -> tuple[Array, Any]:
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        graph, state = nnx.split(self.blocks)
        n = len(self.blocks.layers)
        keys = None if dropout_key is None else jax.random.split(dropout_key, (self.depth, n))
        turn = self.rotation(positions)

        spec, scope = self.config.remat, self.config.remat_scope

        def apply(layer_graph: nnx.GraphDef, layer_state: nnx.State, x: Array, key: Array | None) -> tuple[Array, Any]:
            layer = nnx.merge(layer_graph, layer_state)
            mix = self._over_sequence(layer, positions, segment_ids)
            x, pair = layer(remat.named("input", x), turn, mix, key)
            return constrain(x, "batch", "time", "embed"), pair if keep_cache else None

        def body(x: Array, xs: Any) -> tuple[Array, Any]:
            kept = []
            for i, layer in enumerate(nnx.merge(graph, xs[0]).layers):
                layer_graph, layer_state = nnx.split(layer)
                run = partial(apply, layer_graph)
                if scope != "block":
                    run = remat.checkpointed(run, spec, layer=i, barrier=True)
                x, pair = run(layer_state, x, None if xs[1] is None else xs[1][i])
                kept.append(pair)
            return x, kept if keep_cache else None

        if scope != "layer":
            body = remat.checkpointed(body, spec)
        x = constrain(self.embed(tokens), "batch", "time", "embed")
        x, kept = jax.lax.scan(body, x, (state, keys))
        return self.final_norm(x), kept

    def _over_sequence(self, layer: Layer, positions: Array, segment_ids: Array | None) -> Mix:
        """Attention within the rows at hand; keeps this layer's keys and values."""
        backend = self.config.attention
        options = dict(chunk=self.config.attention_chunk, backend=backend)

        def mix(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
            out = layer.attend(q, k, v, positions=positions, segment_ids=segment_ids, **options)
            return (out if backend in NAME_THEIR_OUTPUT else remat.named("context", out)), (k, v)

        return mix

    def _over_cache(
        self,
        layer: Layer,
        positions: Array,
        prompt: KeyPart,
        pair: kv.KeyValues | None,
        block: Array,
        index: Array,
        slots: Array,
    ) -> Mix:
        """Attention of new tokens over their prompt and what followed it; keeps the cache with the tokens in it."""

        def mix(q: Array, k: Array, v: Array) -> tuple[Array, kv.KeyValues | None]:
            updated = None if pair is None else kv.write(pair, block, index, k, v)
            own = kv.new(k, v, slots) if updated is None else kv.read(updated, block, slots)
            return layer.attend_parts(q, (prompt, own), positions), updated

        return mix


def stack(make: Callable[[nnx.Rngs], M], depth: int, rngs: nnx.Rngs) -> M:
    """``depth`` blocks in one, each parameter with a leading dimension more, for ``jax.lax.scan``."""
    return nnx.split_rngs(splits=depth)(nnx.vmap(make, in_axes=0, out_axes=0))(rngs)
