"""Encoders of texts and of cells, for metrics and rewards: vectors in, nothing generated."""

from c2s_jax.encoders.text import TextEncoder, load_text_encoder

__all__ = ["TextEncoder", "load_text_encoder"]
