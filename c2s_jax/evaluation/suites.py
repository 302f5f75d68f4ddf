"""The further suites by name, as a configuration asks for them."""

from collections.abc import Callable
from typing import Any

from c2s_jax.evaluation.bulk import bulk_metrics
from c2s_jax.evaluation.context import Context
from c2s_jax.evaluation.embedding_suite import embedding_metrics
from c2s_jax.evaluation.perturbation import perturbation_metrics
from c2s_jax.generation import Sampling

Found = dict[str, Any] | None
"""Metrics of a suite, or None where the corpus has no cells for it."""


def _embedding(context: Context, settings: Any, seed: int) -> Found:
    e = settings
    return embedding_metrics(context, e.split, k=e.knn, components=e.pca_components, max_cells=e.max_cells, seed=seed)


def _bulk(context: Context, settings: Any, seed: int) -> Found:
    return bulk_metrics(context, settings.split, components=settings.pca_components, seed=seed)


def _perturbation(context: Context, settings: Any, seed: int) -> Found:
    e = settings
    return perturbation_metrics(
        context,
        e.split,
        sampling=Sampling(temperature=e.temperature, top_p=e.top_p),
        components=e.pca_components,
        max_cells=e.max_cells,
        seed=seed,
    )


SUITES: dict[str, Callable[[Context, Any, int], Found]] = {
    "embedding": _embedding,
    "bulk": _bulk,
    "perturbation": _perturbation,
}


def check(names: tuple[str, ...]) -> None:
    """Refuse names that are no suite."""
    if unknown := [name for name in names if name not in SUITES]:
        raise ValueError(f"evaluation.more_suites names {', '.join(unknown)}; there are {', '.join(SUITES)}")
