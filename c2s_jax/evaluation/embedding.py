"""The model's own embedding of a cell: mean of the last hidden states over its gene tokens, never padding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.evaluation.context import Context, Sentences
from c2s_jax.parallel import InMesh, from_devices, round_up, to_devices


class Embedder:
    """Embeds cell sentences; a cell's vector does not depend on its batch.

    Sentences are read as the model saw them in training: the beginning-of-sequence token, if there is one, then genes.
    """

    def __init__(self, context: Context, *, batch_size: int = 64):
        self.context, self.batch_size = context, round_up(batch_size, context.mesh)
        bos = context.formatter.tokenizer.bos_id
        self._start = [] if bos is None else [bos]
        first = len(self._start)

        def embed(params: nnx.State, tokens: Any, lengths: Any) -> jax.Array:
            hidden = nnx.merge(context.graphdef, params).hidden(tokens).astype(jnp.float32)
            inside = (jnp.arange(tokens.shape[1]) >= first) & (jnp.arange(tokens.shape[1]) < lengths[:, None])
            return jnp.einsum("BTD,BT->BD", hidden, inside) / jnp.maximum(inside.sum(1), 1)[:, None]

        self._embed = InMesh(jax.jit(embed), context.mesh)

    def __call__(self, sentences: Sentences) -> NDArray[np.float32]:
        """Embeddings [C, D], float32."""
        tokens, indptr = self.context.formatter.table.encode_many(sentences.genes, sentences.indptr)
        first = len(self._start)
        lengths = np.diff(indptr) + first
        width = 1 << int(max(lengths.max(), 2) - 1).bit_length()
        out = []
        for start in range(0, len(sentences), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(sentences)))
            batch, n = np.zeros((self.batch_size, width), np.int32), np.ones(self.batch_size, np.int32)
            batch[:, :first] = self._start
            for i, row in enumerate(rows):
                n[i] = lengths[row]
                batch[i, first : n[i]] = tokens[indptr[row] : indptr[row + 1]]
            found = self._embed(self.context.params, *to_devices((batch, n), self.context.mesh))
            out.append(from_devices(found)[: len(rows)])
        return np.concatenate(out)
