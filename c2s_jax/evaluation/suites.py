"""The further suites by name, as a configuration asks for them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from c2s_jax.data import Corpus
from c2s_jax.encoders import load_text_encoder
from c2s_jax.evaluation import exports, spaces
from c2s_jax.evaluation.bulk import bulk_metrics
from c2s_jax.evaluation.context import Context
from c2s_jax.evaluation.embedding_suite import embedding_metrics
from c2s_jax.evaluation.l1000 import l1000_metrics
from c2s_jax.evaluation.perturbation import perturbation_metrics
from c2s_jax.evaluation.scaling import task_losses
from c2s_jax.evaluation.spatial import spatial_metrics
from c2s_jax.evaluation.texts import TASK_OF, text_metrics
from c2s_jax.generation import Sampling

Found = dict[str, Any] | None
"""Metrics of a suite, or None where the corpus has no cells for it."""


def _embedding(context: Context, settings: Any, seed: int) -> Found:
    e = settings
    return embedding_metrics(
        context,
        e.split,
        k=e.knn,
        components=e.pca_components,
        max_cells=e.max_cells,
        seed=seed,
        folder=context.exports if "scib-metrics" in e.export else "",
    )


def _bulk(context: Context, settings: Any, seed: int) -> Found:
    return bulk_metrics(context, settings.split, components=settings.pca_components, seed=seed)


def _perturbation(context: Context, settings: Any, seed: int) -> Found:
    e = settings
    return perturbation_metrics(
        context,
        e.split,
        sampling=sampling(e),
        components=e.pca_components,
        more_spaces=e.more_spaces,
        max_cells=e.max_cells,
        seed=seed,
        export=[name for name in e.export if name != "scib-metrics"],
        folder=context.exports,
    )


def _l1000(context: Context, settings: Any, seed: int) -> Found:
    e = settings
    return l1000_metrics(
        context, e.split, sampling=sampling(e), genes=e.l1000_genes, max_pairs=e.max_prompts, seed=seed
    )


def _spatial(context: Context, settings: Any, seed: int) -> Found:
    e = settings
    return spatial_metrics(context, e.split, sampling=sampling(e), max_examples=e.max_prompts, seed=seed)


def _texts(suite: str, context: Context, settings: Any, seed: int) -> Found:
    e = settings
    encoder = load_text_encoder(e.text_encoder)
    return text_metrics(
        context, e.split, suite, encoder=encoder, layer=e.text_layer or None, n=e.max_prompts, seed=seed
    )


def _scaling(context: Context, settings: Any, seed: int) -> Found:
    e = settings
    losses = task_losses(
        context,
        e.split,
        list(context.tasks.values()),
        samples=e.loss_samples,
        seq_len=context.seq_len,
        batch_size=e.loss_batch_size,
        seed=seed,
    )
    return {task: loss.to_json() for task, loss in losses.items()} or None


def sampling(settings: Any) -> Sampling:
    """How cells are drawn, of the configuration's ``evaluation``."""
    return Sampling(temperature=settings.temperature, top_p=settings.top_p)


SUITES: dict[str, Callable[[Context, Any, int], Found]] = {
    "embedding": _embedding,
    "bulk": _bulk,
    "perturbation": _perturbation,
    "l1000": _l1000,
    "spatial": _spatial,
    **{suite: partial(_texts, suite) for suite in TASK_OF},
    "scaling": _scaling,
}


def check(settings: Any) -> None:
    """Refuse names that are no suite or no space, and suites that lack a setting."""
    names = settings.more_suites
    if unknown := [name for name in names if name not in SUITES]:
        raise ValueError(f"evaluation.more_suites names {', '.join(unknown)}; there are {', '.join(SUITES)}")
    if "perturbation" in names:
        spaces.check(settings.more_spaces)
    if (texts := [name for name in names if name in TASK_OF]) and not settings.text_encoder:
        raise ValueError(
            f"the suite {texts[0]} compares texts by BERTScore: give a BERT's folder or hub id in "
            "evaluation.text_encoder, e.g. dmis-lab/biobert-base-cased-v1.1 with evaluation.text_layer=12"
        )


def check_at_end(settings: Any, corpus: Corpus) -> None:
    """Refuse at a run's start what its evaluation would refuse after the last step.

    Raises
    ------
    ValueError
        A suite, an export or the split is none, or a suite lacks a setting.
    """
    e = settings
    if not e.at_end:
        return
    check(e)
    exports.check(e.export, e.more_suites)
    if e.split not in corpus.splits:
        raise ValueError(f"evaluation.split={e.split!r}: {corpus.path} has {', '.join(corpus.splits)}")
