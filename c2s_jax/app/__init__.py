"""A page to try a model on cells, served to this machine: ``c2s app --model=DIR``."""

from c2s_jax.app.server import serve

__all__ = ["serve"]
