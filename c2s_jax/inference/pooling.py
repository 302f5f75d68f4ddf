"""Embeddings: hidden states of any layer, averaged over the tokens of a prompt and never over padding.

The token that begins every sequence does not count: its state is the same for all cells.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from c2s_jax.data.by_length import by_length, padded
from c2s_jax.parallel import activation_rules, from_devices, round_up, to_devices, tokens_at_once

Pooling = Literal["mean", "last"]


class Pooler:
    """One vector a prompt, which depends on the prompt and on nothing it was batched with.

    Parameters as of ``generation.LabelScorer``; ``skip`` is how many tokens of each prompt are left out, from its
    first.
    """

    def __init__(self, graphdef: nnx.GraphDef, *, pad_id: int, mesh: Mesh, skip: int = 0, batch_size: int = 16):
        self.batch_size = round_up(batch_size, mesh)
        self._pad_id, self._mesh = pad_id, mesh
        self._run = jax.jit(partial(_pool, graphdef, skip), static_argnames=("layer", "pooling"))

    def __call__(
        self,
        params: nnx.State,
        prompts: Sequence[NDArray],
        *,
        layer: int,
        pooling: Pooling = "mean",
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Vectors [N, D], float32.

        Parameters
        ----------
        prompts
            N arrays of token ids.
        layer
            Layers gone through, 0 for the input embeddings.
        pooling
            ``"mean"`` over all tokens of a prompt, or its ``"last"`` one.
        progress
            Called with the number of prompts done in each batch.
        """
        out: list[NDArray] = [np.empty(0)] * len(prompts)
        cut: Any = dict(tokens=tokens_at_once(self._mesh), parts=round_up(1, self._mesh))
        for rows, shape in by_length([len(p) for p in prompts], self.batch_size, **cut):
            batch = to_devices(padded([prompts[i] for i in rows], shape, self._pad_id), self._mesh)
            with jax.set_mesh(self._mesh), activation_rules():
                found = from_devices(self._run(params, *batch, layer=layer, pooling=pooling))
            for place, row in enumerate(rows.tolist()):
                out[row] = found[place]
            if progress:
                progress(len(rows))
        return np.stack(out)


def _pool(
    graphdef: nnx.GraphDef,
    skip: int,
    params: nnx.State,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    *,
    layer: int,
    pooling: Pooling,
) -> Float[Array, "B D"]:
    model: Any = nnx.merge(graphdef, params)
    hidden = model.hidden_after(tokens, layer).astype(jnp.float32)
    at = jnp.arange(tokens.shape[1])
    if pooling == "last":
        return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    inside = (at >= skip) & (at < lengths[:, None])
    # products of padding with zero would still carry NaN
    total = jnp.sum(jnp.where(inside[..., None], hidden, 0.0), axis=1)
    return total / jnp.maximum(lengths - skip, 1)[:, None]
