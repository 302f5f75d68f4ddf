"""Trained models for use: text in, text out."""

from c2s_jax.inference.model import Model, load

__all__ = ["Model", "load"]
