"""Do cells find the bulk sample they belong to? Pseudobulk of held-out cells, zero-shot (FOSCTTM)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.data import CellSource
from c2s_jax.evaluation.context import Context, dense_expression, principal, ranked, sentences_of
from c2s_jax.evaluation.embedding import Embedder

GROUP = ("cell_type", "donor", "tissue", "batch", "perturbation")
SHUFFLES = 5


def bulk_metrics(
    context: Context, split: str, *, components: int, cells_per_bulk: int = 10, seed: int = 0
) -> dict[str, Any] | None:
    """FOSCTTM by cosine between cells and pseudobulk of their group (type × donor × tissue × batch).

    A group's bulk is the mean of its cells' expression on the linear scale; up to `cells_per_bulk` of its cells are
    drawn. Beside the model: PCA of training expression, and expression itself. Scramble: bulk samples dealt out anew.
    None where fewer than three groups have `cells_per_bulk` cells.
    """
    cells, genes = context.corpus.cells(split), len(context.corpus.genes)
    groups = _groups(cells)
    names, sizes = np.unique(groups, return_counts=True)
    kept = names[(sizes >= cells_per_bulk) & (names != "")]
    if len(kept) < 3:
        return None
    rng = np.random.Generator(np.random.Philox(key=seed))
    members = [np.flatnonzero(groups == name) for name in kept]
    bulk = np.stack([_bulk(dense_expression(cells, rows, genes)) for rows in members])
    drawn = np.concatenate([np.sort(rng.choice(rows, cells_per_bulk, replace=False)) for rows in members])
    own = np.repeat(np.arange(len(kept)), cells_per_bulk)
    single = dense_expression(cells, drawn, genes)
    train = context.corpus.cells("train")
    pca = principal(dense_expression(train, np.arange(len(train)), genes), components)
    embed = Embedder(context)
    spaces = {
        "model": (embed(sentences_of(cells, drawn, context.most_genes())), embed(ranked(bulk, context.most_genes()))),
        "pca": (pca.transform(single), pca.transform(bulk)),
        "expression": (single, bulk),
    }
    found = {name: _foscttm(*sides, own) for name, sides in spaces.items()}
    shuffled = [_foscttm(*spaces["model"], rng.permutation(len(kept))[own]) for _ in range(SHUFFLES)]
    return found["model"] | {
        "n": len(drawn),
        "groups": len(kept),
        "baselines": {name: found[name] for name in ("pca", "expression")},
        "scrambles": {"shuffled_pairs": {key: float(np.mean([s[key] for s in shuffled])) for key in shuffled[0]}},
    }


def _groups(cells: CellSource) -> NDArray:
    """A name for each cell's group; "" without a type."""
    columns = [cells.fields(name) for name in GROUP] + [cells.dataset_ids.astype(str)]
    joined = np.array([" | ".join(row) for row in zip(*columns)], dtype=np.str_)
    return np.where(columns[0] == "", "", joined)


def _bulk(expression: NDArray) -> NDArray[np.float32]:
    return np.log10(1 + (10.0**expression - 1).mean(axis=0)).astype(np.float32)


def _foscttm(cells: NDArray, bulk: NDArray, partner: NDArray) -> dict[str, float]:
    """With the bulk sample `partner` beside each cell; cells of one partner are no wrong match of each other."""
    forth, back = metrics.foscttm_by_direction(cells, bulk[partner], groups=partner)
    return {"foscttm": (forth + back) / 2, "foscttm_cells_to_bulk": forth, "foscttm_bulk_to_cells": back}
