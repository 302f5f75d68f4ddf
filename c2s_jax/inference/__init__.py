"""Trained models for use: AnnData in, AnnData and text out."""

from c2s_jax.inference.card import ModelCard
from c2s_jax.inference.inquiry import Reading
from c2s_jax.inference.loading import load
from c2s_jax.inference.model import Model

__all__ = ["Model", "ModelCard", "Reading", "load"]
