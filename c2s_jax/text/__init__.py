"""Text and tokens: tokenizers and the gene → token-ids table.

A tokenizer never runs over cell sentences in a hot path: `GeneTokenTable` holds the tokens of every gene
name, and a sentence's tokens are a vectorised look-up.
"""

from c2s_jax.text.gene_table import GeneTokenTable
from c2s_jax.text.tokenizer import SentencePieceTokenizer, Tokenizer, load_tokenizer

__all__ = ["GeneTokenTable", "SentencePieceTokenizer", "Tokenizer", "load_tokenizer"]
