"""Language models of single cells in JAX."""

__version__ = "0.1.0"
