"""Scores of ``cell-eval`` and ``scib-metrics`` for exported files, in an environment that has these packages."""

import tempfile
from importlib.metadata import version
from typing import Any

import anndata
import numpy as np

from benchmarks._peer import serve


def cell_eval(folder: str) -> dict[str, Any]:
    """Mean squared error of profiles and Pearson correlation of changes, by perturbation."""
    from cell_eval import MetricsEvaluator

    with tempfile.TemporaryDirectory() as out:
        evaluator = MetricsEvaluator(
            f"{folder}/cell_eval_pred.h5ad", f"{folder}/cell_eval_real.h5ad", outdir=out, num_threads=1, skip_de=True
        )
        results, _ = evaluator.compute(profile="anndata", write_csv=False)
    rows = results.to_dicts()
    return {row["perturbation"]: {key: row[key] for key in ("pearson_delta", "mse")} for row in rows}


def scib(folder: str) -> dict[str, Any]:
    """Silhouette of types, scaled to 0 … 1, by embedding."""
    from scib_metrics import silhouette_label

    cells = anndata.read_h5ad(f"{folder}/scib_metrics.h5ad")
    labels = cells.obs["cell_type"].cat.codes.to_numpy()
    return {key: float(silhouette_label(np.asarray(value), labels)) for key, value in cells.obsm.items()}


if __name__ == "__main__":
    serve(cell_eval=cell_eval, scib=scib, about=lambda: {name: version(name) for name in ("cell-eval", "scib-metrics")})
