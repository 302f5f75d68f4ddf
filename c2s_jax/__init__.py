"""Language models of single cells in JAX."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":  # on first use: it brings JAX
        from c2s_jax.inference import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
