"""From a corpus on disk to packed batches."""

from c2s_jax.data.augment import Augmentation
from c2s_jax.data.contexts.base import MissingData
from c2s_jax.data.corpus import CellSource, Corpus
from c2s_jax.data.formatting import Formatter
from c2s_jax.data.mixture import Mixture, MixtureTask
from c2s_jax.data.prompts import Prompts, PromptStream
from c2s_jax.data.reconstruct import reconstruct
from c2s_jax.data.requests import Request, request
from c2s_jax.data.stream import PackedRows, batches

__all__ = [
    "Augmentation",
    "CellSource",
    "Corpus",
    "Formatter",
    "MissingData",
    "Mixture",
    "MixtureTask",
    "PackedRows",
    "PromptStream",
    "Prompts",
    "Request",
    "batches",
    "reconstruct",
    "request",
]
