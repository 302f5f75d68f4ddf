"""Where results in an AnnData come from: ``adata.uns["c2s"]``."""

import datetime
from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np

import c2s_jax
from c2s_jax.inference.language_model import LanguageModel

KEY = "c2s"


def record(
    adata: ad.AnnData,
    function: str,
    model: LanguageModel,
    *,
    prompts: list[str],
    settings: Mapping[str, Any],
    report: list[str] | None = None,
    **results: Any,
) -> None:
    """Write what a function did into ``adata.uns["c2s"][function]``, as types that h5ad holds.

    Parameters
    ----------
    prompts
        Templates asked with.
    settings
        Arguments; those that are None are left out.
    report
        What was assumed, cut or left out.
    results
        Whatever belongs to the result, e.g. the labels that probabilities stand for.
    """
    entry = {
        "model": model.source,
        "model_fingerprint": model.fingerprint,
        **({"adapter": model.adapter} if model.adapter else {}),
        "version": c2s_jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "prompts": list(prompts),
        "settings": {name: _plain(value) for name, value in settings.items() if not _absent(value)},
        **results,
    }
    if report:
        entry["report"] = list(report)
    adata.uns[KEY] = {**adata.uns.get(KEY, {}), function: entry}  # set as a whole: a view keeps no change of a part


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping | list | tuple) and not value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, str | int | float | bool):
        return value
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)
