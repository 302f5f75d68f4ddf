"""Token log-probabilities under a large vocabulary, without ever holding all logits."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2s_jax.ops.constrain import constrain, shards, time_parts

CHUNK_LOGITS = 1 << 24  # that a device makes at once: 64 MiB in float32
CHUNK_TOKENS = 512  # at least; every chunk reads the table and adds to its gradient
PADDING = -1.0e9  # logit of a row that is no token; its square is finite in float32


def token_logprobs(
    hidden: Float[Array, "B T D"],
    table: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    *,
    softcap: float | None = None,
    temperature: float = 1.0,
    vocab_size: int | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Log-probability of each target token and entropy of its distribution.

    ``logits = softcap · tanh(hidden @ tableᵀ / softcap)`` are made for ``chunk`` time steps at once and made again
    in the backward pass. Under activation rules (see ``constrain``) the vocabulary is spread over all devices of a
    replica: each holds its part of the table and of the table's gradient, never all of it, and makes the logits of that
    part for all rows; hidden states travel, a chunk at a time.

    Parameters
    ----------
    hidden
        Final hidden states, any float dtype; products accumulate in float32.
    table
        Output embedding.
    targets
        Token ids.
    softcap
        Final logit soft cap, or None.
    temperature
        Divides the capped logits: the log-probabilities are those of sampling at this temperature.
    vocab_size
        Tokens that there are; rows of the table beyond, which pad it, have no probability. None for all.
    chunk
        Time steps a chunk; by default as many as make 16M logits a device, or 512 tokens where that is more.

    Returns
    -------
    log-probabilities and entropies in nats, float32 [B, T]. Both are differentiable in ``hidden`` and ``table``.
    """
    B, T, _ = hidden.shape
    if chunk is None:
        rows = B // shards("loss_batch")
        logits = CHUNK_LOGITS * shards("loss_vocab") // (rows * table.shape[0])
        chunk = max(1, logits, CHUNK_TOKENS // rows)
        chunk = 1 << (chunk.bit_length() - 1)  # fills the lanes of vector units
    chunk = min(chunk, T)
    if (parts := time_parts(T)) > 1:  # nothing is padded: it would move tokens between devices
        chunk = parts * math.gcd(max(1, chunk // parts), T // parts)
    if padding := -T % chunk:
        hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
        targets = jnp.pad(targets, ((0, 0), (0, padding)))
    head = _Head(softcap, temperature, vocab_size)
    logprob, entropy = _chunked(hidden, table, targets, head, chunk)
    return logprob[:, :T], entropy[:, :T]


def _chunks(x: jax.Array, chunk: int) -> jax.Array:
    """[B, T, ...] -> [T/chunk, B, chunk, ...]; a chunk has equally much of every device's part of T."""
    parts = time_parts(chunk)
    x = jnp.moveaxis(x.reshape(x.shape[0], parts, -1, chunk // parts, *x.shape[2:]), 2, 0)
    return x.reshape(*x.shape[:2], chunk, *x.shape[4:])


def _unchunk(x: jax.Array) -> jax.Array:
    """Inverse of ``_chunks``."""
    parts = time_parts(x.shape[2])
    x = jnp.moveaxis(x.reshape(*x.shape[:2], parts, -1, *x.shape[3:]), 0, 2)
    return x.reshape(x.shape[0], -1, *x.shape[4:])


class _Head(NamedTuple):
    """What happens to the products of hidden states and table."""

    softcap: float | None
    temperature: float
    vocab_size: int | None

    def logits(self, hidden: Array, table: Array) -> Array:
        logits = jnp.einsum("BTD,VD->BTV", hidden, table, preferred_element_type=jnp.float32)
        logits = logits if self.softcap is None else self.softcap * jnp.tanh(logits / self.softcap)
        logits = logits if self.temperature == 1 else logits / self.temperature
        rows = table.shape[0]
        if self.vocab_size is None or self.vocab_size == rows:
            return logits
        return jnp.where(jnp.arange(rows) < self.vocab_size, logits, PADDING)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _chunked(hidden: Array, table: Array, targets: Array, head: _Head, chunk: int) -> tuple[Array, Array]:
    return _forward(hidden, table, targets, head, chunk)[0]


def _forward(hidden: Array, table: Array, targets: Array, head: _Head, chunk: int) -> Any:
    table = constrain(table, "loss_vocab", None)

    def one(xs: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        h, t = _to_all(*xs)
        logits = constrain(head.logits(h, table), "loss_batch", None, "loss_vocab")
        logsumexp = jax.nn.logsumexp(logits, axis=-1)
        expected = jnp.sum(jnp.exp(logits - logsumexp[..., None]) * logits, axis=-1)
        target = jnp.sum(jnp.where(t[..., None] == jnp.arange(table.shape[0]), logits, 0.0), axis=-1)
        return target - logsumexp, logsumexp - expected, logsumexp

    outputs = jax.lax.map(one, (_chunks(hidden, chunk), _chunks(targets, chunk)))
    logprob, entropy, logsumexp = (constrain(_unchunk(x), "batch", "time") for x in outputs)
    return (logprob, entropy), (hidden, table, targets, logsumexp, entropy)


def _backward(head: _Head, chunk: int, residuals: Any, cotangents: tuple[Array, Array]) -> Any:
    hidden, table, targets, logsumexp, entropy = residuals
    d_logprob, d_entropy = cotangents
    replicas = shards("loss_batch")

    def one(d_table: Array, xs: Any) -> tuple[Array, Array]:
        h, t, lse, ent, dlp, dent = _to_all(*xs)
        logits = constrain(head.logits(h, table), "loss_batch", None, "loss_vocab")
        log_p = logits - lse[..., None]
        d = -jnp.exp(log_p) * (dlp[..., None] + dent[..., None] * (log_p + ent[..., None]))
        d += jnp.where(t[..., None] == jnp.arange(table.shape[0]), dlp[..., None], 0.0)
        if head.softcap is not None:
            d *= 1.0 - jnp.square(head.temperature * logits / head.softcap)
        if head.temperature != 1:
            d /= head.temperature
        d = d.astype(h.dtype)
        # A sum for each replica, added up after the last chunk: adding here would be an all-reduce for every chunk.
        # Rows and time as one: of a sum over both, XLA for CPUs makes a transposed copy of the logits first.
        by_replica = (x.reshape(replicas, -1, x.shape[-1]) for x in (d, h))
        d_table += jnp.einsum("NTV,NTD->NVD", *by_replica, preferred_element_type=jnp.float32)
        d_hidden = jnp.einsum("BTV,VD->BTD", d, table, preferred_element_type=jnp.float32)
        d_hidden = constrain(d_hidden, "batch", "time", None).astype(h.dtype)
        return constrain(d_table, "loss_batch", "loss_vocab", None), d_hidden

    inputs = (hidden, targets, logsumexp, entropy, d_logprob, d_entropy)
    xs = tuple(_chunks(x, chunk) for x in inputs)
    d_table, d_hidden = jax.lax.scan(one, jnp.zeros((replicas, *table.shape), jnp.float32), xs)
    return constrain(_unchunk(d_hidden), "batch", "time", None), d_table.sum(axis=0).astype(table.dtype), None


def _to_all(*arrays: Array) -> tuple[Array, ...]:
    """A chunk's rows [B, ...] on every device of their replica."""
    return tuple(constrain(x, "loss_batch", *[None] * (x.ndim - 1)) for x in arrays)


_chunked.defvjp(_forward, _backward)
