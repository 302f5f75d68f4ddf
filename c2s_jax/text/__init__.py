"""Text and tokens: tokenizers and the gene → token-ids table.

A tokenizer never runs over cell sentences in a hot path: `GeneTokenTable` holds the tokens of every gene
name, and a sentence's tokens are a vectorised look-up.
"""

from c2s_jax.text.encoder_tokenizer import EncoderTokenizer
from c2s_jax.text.files import copy_tokenizer, load_tokenizer
from c2s_jax.text.gene_table import GeneTokenTable
from c2s_jax.text.hugging_face import HuggingFaceTokenizer
from c2s_jax.text.sentence_piece import SentencePieceTokenizer
from c2s_jax.text.tokenizer import Tokenizer

__all__ = [
    "EncoderTokenizer",
    "GeneTokenTable",
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "copy_tokenizer",
    "load_tokenizer",
]
