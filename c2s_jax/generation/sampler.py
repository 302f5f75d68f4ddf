"""Batched generation: one jitted program reads the prompts and decodes until every row has stopped."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array
from numpy.typing import NDArray

from c2s_jax.generation.sampling import NEVER, Sampling, draw, log_distribution
from c2s_jax.parallel import activation_rules, batch_sharding

SMALLEST_BUCKET = 32


class Samples(NamedTuple):
    """Generated tokens of N prompts.

    Attributes
    ----------
    tokens
        int32 [N, max_new_tokens], the stop token included, then ``pad_id``.
    logprobs
        float32 [N, max_new_tokens], of the distribution sampled from; 0 after the stop token.
    lengths
        int32 [N], tokens generated, the stop token included.
    stopped
        bool [N], whether a stop token came before the limit.
    """

    tokens: NDArray
    logprobs: NDArray
    lengths: NDArray
    stopped: NDArray

    def texts(self, decode: Callable[[list[int]], str]) -> list[str]:
        """Decoded answers, without the stop token."""
        ends = self.lengths - self.stopped
        return [decode(row[:end].tolist()) for row, end in zip(self.tokens, ends)]


class _Carry(NamedTuple):
    written: Array
    token: Array
    position: Array
    done: Array
    tokens: Array
    logprobs: Array
    cache: Any


class Sampler:
    """Samples from a model on its devices.

    Prompts are padded to power-of-two lengths and batches to ``batch_size``, so that one program a
    (prompt bucket, ``max_new_tokens``, ``Sampling``) serves all calls; ``compiled`` counts them.

    Parameters
    ----------
    graphdef
        Of a model with ``prefill``, ``step`` and ``logits``.
    stop_ids
        Tokens that end an answer.
    pad_id
        Fills rows after their end.
    vocab_size
        Pieces of the tokenizer; ids beyond, rows that pad a checkpoint's table, are never drawn. None allows all.
    batch_size
        Rows decoded at once; raised to a multiple of the devices that share them.
    mesh
        Devices that hold the parameters; rows are spread over its replica and fsdp axes.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        *,
        stop_ids: Sequence[int],
        pad_id: int = 0,
        vocab_size: int | None = None,
        batch_size: int = 64,
        mesh: Mesh,
    ):
        shards = mesh.shape["replica"] * mesh.shape["fsdp"]
        self.batch_size = -(-batch_size // shards) * shards
        self.pad_id, self._mesh, self._rows = pad_id, mesh, batch_sharding(mesh)
        run = partial(_generate, graphdef, tuple(stop_ids), pad_id, vocab_size)
        self._run = jax.jit(run, static_argnames=("max_new_tokens", "sampling"))

    @property
    def compiled(self) -> int:
        """Programs compiled so far."""
        return self._run._cache_size()  # type: ignore[attr-defined]

    def __call__(
        self,
        params: nnx.State,
        prompts: Sequence[NDArray],
        *,
        max_new_tokens: int,
        sampling: Sampling = Sampling(),
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """Generate one answer a prompt. Row i's randomness depends on (seed, i) alone, not on its batch.

        Parameters
        ----------
        params
            The model's parameters.
        prompts
            N arrays of token ids, none empty.
        max_new_tokens
            Most tokens an answer.
        progress
            Called with the number of prompts finished in each batch.
        """
        if empty := [i for i, p in enumerate(prompts) if not len(p)]:
            raise ValueError(f"prompt {empty[0]} is empty; start it with the beginning-of-sequence token")
        order = np.argsort([len(p) for p in prompts], kind="stable")
        shape = (len(prompts), max_new_tokens)
        out = Samples(
            np.full(shape, self.pad_id, np.int32),
            np.zeros(shape, np.float32),
            np.zeros(shape[0], np.int32),
            np.zeros(shape[0], bool),
        )
        for start in range(0, len(prompts), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self._pad([prompts[i] for i in rows])
            ids = np.resize(rows, self.batch_size).astype(np.uint32)
            inputs = jax.device_put((*batch, ids), self._rows)
            with jax.set_mesh(self._mesh), activation_rules():
                result = self._run(params, *inputs, np.uint32(seed), max_new_tokens=max_new_tokens, sampling=sampling)
            for column, values in zip(out, jax.device_get(result)):
                column[rows] = values[: len(rows)]
            if progress:
                progress(len(rows))
        return out

    def _pad(self, prompts: Sequence[NDArray]) -> tuple[NDArray, NDArray, NDArray]:
        longest = max(len(p) for p in prompts)
        bucket = max(SMALLEST_BUCKET, 1 << (longest - 1).bit_length())
        tokens = np.full((self.batch_size, bucket), self.pad_id, np.int32)
        lengths = np.ones(self.batch_size, np.int32)
        for i, p in enumerate(prompts):
            tokens[i, : len(p)], lengths[i] = p, len(p)
        return tokens, lengths, np.arange(self.batch_size) >= len(prompts)


def _generate(
    graphdef: nnx.GraphDef,
    stop_ids: tuple[int, ...],
    pad_id: int,
    vocab_size: int | None,
    params: nnx.State,
    prompts: Array,
    lengths: Array,
    filler: Array,
    row_ids: Array,
    seed: Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
) -> tuple[Array, Array, Array, Array]:
    model = nnx.merge(graphdef, params)
    # On the CPU, XLA copies what a loop reads from a stack at every step; blocks taken apart are read in place.
    count = model.depth if jax.default_backend() == "cpu" else 1
    parts = model.parts(count)
    rows = prompts.shape[0]
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), row_ids)
    stops = jnp.asarray(stop_ids, jnp.int32)

    def sample(hidden: Array, count: Array) -> tuple[Array, Array]:
        logits = model.logits(hidden[:, None])[:, 0]
        logits = logits.at[:, vocab_size:].set(NEVER) if vocab_size else logits
        log_p = log_distribution(logits, sampling)
        return draw(log_p, jax.vmap(jax.random.fold_in, (0, None))(row_keys, count), sampling)

    def record(carry: _Carry, token: Array, logprob: Array) -> _Carry:
        token = jnp.where(carry.done, pad_id, token)
        logprob = jnp.where(carry.done, 0.0, logprob)
        return carry._replace(
            written=carry.written + 1,
            token=token,
            position=carry.position + 1,
            done=carry.done | (token[:, None] == stops).any(axis=1),
            tokens=carry.tokens.at[:, carry.written].set(token),
            logprobs=carry.logprobs.at[:, carry.written].set(logprob),
        )

    def body(carry: _Carry) -> _Carry:
        hidden, cache = model.step(carry.token, carry.position, carry.cache, parts)
        return record(carry._replace(cache=cache), *sample(hidden, carry.written))

    hidden, cache = model.prefill(prompts, lengths, prompts.shape[1] + max_new_tokens, count)
    shape = (rows, max_new_tokens)
    carry = _Carry(
        jnp.zeros((), jnp.int32),
        jnp.zeros((rows,), jnp.int32),
        lengths - 1,
        filler,
        jnp.full(shape, pad_id, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        cache,
    )
    carry = record(carry, *sample(hidden, carry.written))
    carry = jax.lax.while_loop(lambda c: (c.written < max_new_tokens) & ~c.done.all(), body, carry)
    generated = carry.position - lengths + 1
    ended = (carry.tokens[:, :, None] == stops).any(axis=2)
    stopped = ended.any(axis=1)
    return carry.tokens, carry.logprobs, jnp.where(stopped, jnp.argmax(ended, axis=1) + 1, generated), stopped
