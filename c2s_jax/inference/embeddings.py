"""Vectors of cells, and of several cells read together."""

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.data.ragged import offsets
from c2s_jax.inference.contexts import draw_contexts
from c2s_jax.inference.inquiry import Inquiry
from c2s_jax.inference.language_model import LanguageModel
from c2s_jax.inference.pooling import Pooling
from c2s_jax.inference.provenance import record
from c2s_jax.inference.streaming import Meter, cell_bar, over_cells

TASK = "cell_type_annotation"
GROUP_TASK = "tissue_annotation"


def embed(
    model: LanguageModel,
    adata: ad.AnnData,
    *,
    layer: int,
    pooling: Pooling,
    key_added: str,
    resume: Any,
    progress: bool,
    **reading: Any,
) -> None:
    """See ``Model.embed``."""
    depth = depth_of(model, layer)
    inquiry = Inquiry(model, adata, TASK, room=0, **reading)

    def compute(rows: NDArray, asked: list[list[NDArray]], advance: Callable[[int], None]) -> dict[str, NDArray]:
        return {"vectors": model.pooler(model.params, asked[0], layer=depth, pooling=pooling, progress=advance)}

    settings = {"model_layer": depth, "pooling": pooling}
    out = np.full((adata.n_obs, model.config.embed_dim), np.nan, np.float32)
    for block, rows, found in over_cells(
        inquiry, compute, what="embed", settings=settings, resume=resume, progress=progress
    ):
        if len(rows):
            out[block.start + rows] = found["vectors"]
    adata.obsm[key_added] = out
    _record(inquiry, adata, "embed", settings | reading, key_added)


def embed_groups(
    model: LanguageModel,
    adata: ad.AnnData,
    groupby: str,
    *,
    n_cells: int,
    n_contexts: int,
    layer: int,
    pooling: Pooling,
    seed: int,
    progress: bool,
    **reading: Any,
) -> ad.AnnData:
    """See ``Model.embed_groups``."""
    depth = depth_of(model, layer)
    inquiry = Inquiry(model, adata, GROUP_TASK, room=0, **reading)
    contexts = draw_contexts(adata, inquiry.reader, groupby, n_cells=n_cells, n_contexts=n_contexts, seed=seed)
    genes, indptr = inquiry.reader.take(np.concatenate([c.rows for c in contexts]))
    first = np.array([c.rows[0] for c in contexts])
    lists = np.array([len(c.rows) for c in contexts], np.int64)
    prompts = inquiry.write(first, genes, indptr, lists=lists)
    with cell_bar(len(contexts), "embed groups", progress) as bar:
        vectors = model.pooler(model.params, prompts, layer=depth, pooling=pooling, progress=Meter(bar).advance)
    bounds = offsets(lists)
    names = np.concatenate([adata.obs_names[c.rows] for c in contexts])
    obs = pd.DataFrame(
        {
            groupby: pd.Categorical([c.group for c in contexts]),
            "n_cells": lists,
            "cells": [";".join(names[a:b]) for a, b in zip(bounds, bounds[1:])],
        },
        index=[f"{c.group}_{c.number}" for c in contexts],
    )
    out = ad.AnnData(obs=obs, obsm={"X_c2s": vectors})
    settings = dict(groupby=groupby, n_cells=n_cells, model_layer=depth, pooling=pooling, seed=seed)
    _record(inquiry, out, "embed_groups", settings | reading, "X_c2s")
    return out


def depth_of(model: LanguageModel, layer: int) -> int:
    """Layers gone through, 0 to all of them; negative numbers count from the last."""
    n = model.config.num_layers
    depth = layer if layer >= 0 else n + 1 + layer
    if not 0 <= depth <= n:
        raise ValueError(f"layer={layer}: the model has layers 1 … {n}, 0 is its input and -1 the last")
    return depth


def _record(inquiry: Inquiry, adata: ad.AnnData, what: str, settings: dict[str, Any], key_added: str) -> None:
    prompts = [inquiry.template.model_input]
    report = inquiry.warn()
    record(adata, what, inquiry.model, prompts=prompts, settings=settings, report=report, key_added=key_added)
