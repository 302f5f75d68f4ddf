"""What ``datasets.jsonl`` says about a data set."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.conversion import Conversion
from c2s_jax.data import corpus_format as fmt
from data_pipeline.datasets import Dataset
from data_pipeline.jobs import versions


def dataset_line(
    dataset: Dataset, splits: NDArray[np.int8], convert: Conversion, n_genes: NDArray[np.int32]
) -> dict[str, Any]:
    """The line of one data set, without its line from rank to expression.

    Parameters
    ----------
    dataset : Dataset
    splits : int8 [C]
    convert : Conversion
    n_genes : int32 [C]
        Expressed genes that stay.
    """
    source = dataset.source
    return {
        "name": source.name,
        "organism": _organism(dataset),
        "abstracts": list(source.abstracts),
        "captions": {value: list(texts) for value, texts in source.captions.items()},
        "caption_field": source.caption_field,
        "control": source.control,
        "radius": source.radius,
        "spatial_unit": source.spatial_unit,
        "counts": {
            "cells": int(dataset.kept.sum()),
            "genes": int(dataset.genes.sum()),
            "expressed": int(n_genes[dataset.kept].sum(dtype=np.int64)),
            **{name: int((splits == i).sum()) for i, name in enumerate(fmt.SPLITS)},
        },
        "provenance": _provenance(dataset, convert),
    }


def _organism(dataset: Dataset) -> str:
    """That of the cells, "" where they differ."""
    column = dataset.field("organism")
    there = np.unique(column.codes[dataset.kept])
    return str(column.values[there[0]]) if len(there) == 1 else ""


def _provenance(dataset: Dataset, convert: Conversion) -> dict[str, Any]:
    source, options, sums_of = dataset.source, dataset.job.options, dataset.job.sums_of
    return {
        "file": source.file,
        "sums_of": dataset.job.sources[sums_of[dataset.number]].name if dataset.number in sums_of else None,
        "obs_columns": dict(source.obs_columns),
        "expression": {key: value for key, value in source.expression.items() if value is not None},
        "normalisation": {"scale": convert.merged_scale.text, "target_sum": convert.target_sum},
        "min_genes": source.min_genes,
        "min_cells": source.min_cells,
        "report": [convert.sentence(dataset.facts["matrix"], source.expression.get("target_sum")), *dataset.report],
        "split": dict(zip(fmt.SPLITS, options.split, strict=True)),
        "split_by": options.split_by,
        "tile_side": options.tile_side,
        "held_out": [{name: list(values) for name, values in condition.items()} for condition in options.held_out],
        "stratify": options.stratify,
        "seed": options.seed,
        "ties": options.ties,
        "top_k": options.top_k,
        "duplicates_cells": options.duplicates_cells,
        "versions": versions(),
    }
