"""Suites that measure a trained model on held-out cells."""

from c2s_jax.evaluation.annotation import Annotations, annotate
from c2s_jax.evaluation.context import Context, dense_expression
from c2s_jax.evaluation.embedding import Embedder
from c2s_jax.evaluation.generation import Generated, generate_cells, generation_metrics

__all__ = [
    "Annotations",
    "Context",
    "Embedder",
    "Generated",
    "annotate",
    "dense_expression",
    "generate_cells",
    "generation_metrics",
]
