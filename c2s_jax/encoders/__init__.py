"""Encoders of texts and of cells, for metrics and rewards: vectors in, nothing generated."""

from c2s_jax.encoders.cells import CellEncoder, load_cell_encoder
from c2s_jax.encoders.text import TextEncoder, load_text_encoder

__all__ = ["CellEncoder", "TextEncoder", "load_cell_encoder", "load_text_encoder"]
