"""BERT (Devlin et al. 2019, arXiv:1810.04805) in Flax NNX: the architecture of BioBERT, of MiniLM's sentence encoders
and, with other positions, of RoBERTa (arXiv:1907.11692).

Letters: B batch, T time, D model.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from c2s_jax.models.encoder import Encoder, EncoderConfig, table

RELEASED: dict[str, dict[str, Any]] = {
    "biobert-base-cased-v1.1": dict(vocab_size=28_996, embed_dim=768, ffw_dim=3072, num_layers=12, num_heads=12),
    "all-MiniLM-L6-v2": dict(vocab_size=30_522, embed_dim=384, ffw_dim=1536, num_layers=6, num_heads=12),
    "roberta-large": dict(
        vocab_size=50_265,
        embed_dim=1024,
        ffw_dim=4096,
        num_layers=24,
        num_heads=16,
        num_positions=514,
        first_position=2,
        num_token_types=1,
        norm_eps=1e-5,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(EncoderConfig):
    """Architecture of one BERT.

    Attributes
    ----------
    num_positions
        Rows of the table of positions.
    first_position
        The row of a text's first token: 0, in RoBERTa 2.
    num_token_types
        Sentences that a text may be made of.
    """

    num_positions: int = 512
    first_position: int = 0
    num_token_types: int = 2

    @property
    def max_length(self) -> int:
        """Most tokens a text."""
        return self.num_positions - self.first_position


class Bert(Encoder):
    """Bidirectional encoder with learned positions."""

    config: BertConfig

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.positions = table(config, config.num_positions, None, rngs)
        self.token_types = table(config, config.num_token_types, None, rngs)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        lengths: Int[Array, "B"],
        token_types: Int[Array, "B T"] | None = None,
        *,
        layer: int | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states of every token.

        Parameters
        ----------
        tokens
            Left-aligned rows, special tokens included; what pads them does not matter.
        lengths
            Tokens a row that are not padding, at least 1.
        token_types
            Which sentence a token is of; all of the first one by default.
        layer
            After how many layers; 0 for the embeddings, None for all. Later layers are not computed.

        Raises
        ------
        ValueError
            When rows are longer than there are positions, or the model has no such layer.
        """
        if tokens.shape[1] > self.config.max_length:
            raise ValueError(f"{tokens.shape[1]} tokens a row; the model has positions for {self.config.max_length}")
        first = self.config.first_position
        x = self.embedding[...][tokens] + self.positions[...][first : first + tokens.shape[1]]
        types = self.token_types[...]
        x += types[0] if token_types is None else types[token_types]
        return self.encode(self.embedding_norm(jnp.asarray(x, self.config.dtype)), lengths, layer)
