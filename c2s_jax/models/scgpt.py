"""scGPT's encoder of cells (Cui et al. 2024, doi:10.1038/s41592-024-02201-0) in Flax NNX.

Letters: B batch, T time (genes of a cell, ``<cls>`` first), D model.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models.encoder import Encoder, EncoderConfig, norm
from c2s_jax.models.linear import Linear

LARGEST_VALUE = 512.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScGPTConfig(EncoderConfig):
    """Architecture of one scGPT; the sizes are those that all released ones share."""

    embed_dim: int = 512
    ffw_dim: int = 512
    num_layers: int = 12
    num_heads: int = 8
    activation: str = "relu"
    norm_eps: float = 1e-5


class ValueEncoder(nnx.Module):
    """A number as a vector: two linear maps around a ReLU, and a norm."""

    def __init__(self, config: ScGPTConfig, rngs: nnx.Rngs):
        embed, dtype = {"embed": config.embed_dim}, config.param_dtype
        self.up = Linear({"norm": 1}, embed, bias=True, param_dtype=dtype, rngs=rngs)
        self.down = Linear({"norm": config.embed_dim}, embed, bias=True, param_dtype=dtype, rngs=rngs)
        self.norm = norm(config)

    def __call__(self, values: Float[Array, "B T"]) -> Float[Array, "B T D"]:
        x = jnp.minimum(values, LARGEST_VALUE)[..., None]
        return self.norm(self.down(jax.nn.relu(self.up(x))))


class ScGPT(Encoder):
    """Encoder of a cell's genes, in any order, with their binned expression."""

    config: ScGPTConfig

    def __init__(self, config: ScGPTConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.values = ValueEncoder(config, rngs)

    def __call__(
        self,
        genes: Int[Array, "B T"],
        values: Float[Array, "B T"],
        lengths: Int[Array, "B"],
        *,
        layer: int | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states of every gene.

        Parameters
        ----------
        genes
            Ids, ``<cls>`` first; left-aligned rows, and what pads them does not matter.
        values
            Binned expression, 1 to 50; −2 of ``<cls>``.
        lengths
            Genes a row that are not padding, ``<cls>`` included.
        layer
            After how many layers; 0 for the embeddings, None for all.
        """
        x = self.embedding_norm(self.embedding[...][genes].astype(self.config.dtype))
        return self.encode(x + self.values(values.astype(self.config.dtype)), lengths, layer)
