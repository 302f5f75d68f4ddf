"""Log-probabilities of candidate answers: the prompt is read once, each candidate goes on from its keys and values."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from c2s_jax.inference.batches import BATCH_SIZE, by_length, padded
from c2s_jax.parallel import activation_rules, batch_sharding


class LabelScorer:
    """log p(answer | prompt) of every candidate answer of every prompt.

    Parameters
    ----------
    graphdef
        Of a model with ``prefill``, ``step`` and ``logits``.
    pad_id
        Fills rows after their end.
    mesh
        Devices that hold the parameters.
    batch_size
        Prompts read at once.
    """

    def __init__(self, graphdef: nnx.GraphDef, *, pad_id: int, mesh: Mesh, batch_size: int = BATCH_SIZE):
        shards = mesh.shape["replica"] * mesh.shape["fsdp"]
        self.batch_size = -(-batch_size // shards) * shards
        self._pad_id, self._mesh, self._rows = pad_id, mesh, batch_sharding(mesh)
        self._run = jax.jit(partial(_score, graphdef))

    def __call__(
        self,
        params: nnx.State,
        prompts: Sequence[NDArray],
        answers: Sequence[Sequence[int]],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Scores in nats, float32 [N, L], of L answers, each to its last token, after N prompts.

        ``progress`` is called with the number of prompts done in each batch.
        """
        lengths = np.array([len(answer) for answer in answers], np.int32)
        table = np.full((len(answers), int(lengths.max())), self._pad_id, np.int32)
        for row, answer in zip(table, answers):
            row[: len(answer)] = answer
        out = np.empty((len(prompts), len(answers)), np.float32)
        for rows in by_length(prompts, self.batch_size):
            batch = jax.device_put(padded([prompts[i] for i in rows], self.batch_size, self._pad_id), self._rows)
            with jax.set_mesh(self._mesh), activation_rules():
                out[rows] = np.asarray(self._run(params, *batch, table, lengths))[: len(rows)]
            if progress:
                progress(len(rows))
        return out


def _score(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    answers: Int[Array, "L A"],
    answer_lengths: Int[Array, "L"],
) -> Float[Array, "B L"]:
    model: Any = nnx.merge(graphdef, params)
    count = model.depth if jax.default_backend() == "cpu" else 1
    parts = model.parts(count)
    hidden, cache = model.prefill(prompts, lengths, prompts.shape[1] + answers.shape[1], count)
    rows = prompts.shape[0]

    def logprob(hidden: Array, token: Array) -> Array:
        return jax.nn.log_softmax(model.logits(hidden[:, None])[:, 0])[:, token]

    def one(answer: tuple[Array, Array]) -> Array:
        tokens, length = answer

        def advance(carry: Any, at: Array) -> tuple[Any, None]:
            hidden, cache, total = carry
            total += jnp.where(at < length, logprob(hidden, tokens[at]), 0.0)
            hidden, cache = model.step(jnp.full(rows, tokens[at]), lengths + at, cache, parts)
            return (hidden, cache, total), None

        last = answers.shape[1] - 1
        start = (hidden, cache, jnp.zeros(rows, jnp.float32))
        (after, _, total), _ = jax.lax.scan(advance, start, jnp.arange(last))
        return total + jnp.where(last < length, logprob(after, tokens[last]), 0.0)

    return jax.lax.map(one, (answers, answer_lengths)).T
