"""Distances of ``pertpy`` between real and generated cells of an exported file, in an environment that has it."""

from importlib.metadata import version
from typing import Any

import anndata

from benchmarks._peer import serve


def distances(folder: str, metric: str, settings: dict[str, Any]) -> dict[str, float]:
    """Between the real and the generated cells of each perturbation, in ``X_pca``."""
    import pertpy

    cells = anndata.read_h5ad(f"{folder}/pertpy.h5ad")
    distance = pertpy.tools.Distance(metric, obsm_key="X_pca")
    table = distance.pairwise(cells, groupby="group", show_progressbar=False, n_jobs=1, **settings)
    names = sorted({group.split(" | ")[0] for group in table.index if " | " in group})
    return {name: float(table.loc[f"{name} | real", f"{name} | generated"]) for name in names}


if __name__ == "__main__":
    serve(distances=distances, about=lambda: {name: version(name) for name in ("pertpy", "ott-jax")})
