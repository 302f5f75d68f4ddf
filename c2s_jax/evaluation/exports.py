"""Cells of an evaluation as h5ad files in the input formats of other tools, so that others can score them.

Expression is natural log1p of normalised counts, as these tools expect it (a corpus stores log10).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

FORMATS = ("cell-eval", "pertpy", "scib-metrics")
CONTROL, UNTREATED = "control", "non-targeting"  # the latter as cell-eval calls it


def check(formats: Sequence[str], suites: Sequence[str]) -> None:
    """Refuse unknown formats, and those whose suite is not asked for."""
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"evaluation.export names {name!r}; there are {', '.join(FORMATS)}")
        suite = "embedding" if name == "scib-metrics" else "perturbation"
        if suite not in suites:
            raise ValueError(f"evaluation.export={name!r} needs the suite {suite!r} in evaluation.more_suites")


def write_perturbed(
    folder: str | Path,
    formats: Sequence[str],
    *,
    real: NDArray[np.float32],
    generated: NDArray[np.float32],
    control: NDArray[np.float32],
    obs: Mapping[str, NDArray],
    control_obs: Mapping[str, NDArray],
    genes: Sequence[str],
    space: Any,
) -> list[Path]:
    """Real and generated perturbed cells, with control cells, for ``cell-eval`` and ``pertpy``.

    ``cell_eval_real.h5ad`` and ``cell_eval_pred.h5ad`` hold the perturbed cells and the same control cells;
    ``obs["target"]`` names the perturbation, "non-targeting" the untreated (the tool's defaults), ``obs["cell_type"]``
    the type.
    ``pertpy.h5ad`` holds all three with ``obs["group"]`` ("perturbation | real", "perturbation | generated", "control")
    for ``Distance(...).pairwise(groupby="group")``, and the principal components in ``obsm["X_pca"]``.

    Parameters
    ----------
    folder
        Made if need be; files in it are replaced.
    real, generated, control
        log10(1 + normalised) expression, [C, G], [C, G] and [K, G].
    obs, control_obs
        ``perturbation`` and ``cell_type`` of the cells [C], ``cell_type`` of the control [K].
    genes
        Names of the columns.
    space
        Fitted ``transform`` from expression to what distances are taken in.
    """
    names = np.concatenate([obs["perturbation"], np.full(len(control), CONTROL)])
    if taken := {CONTROL, UNTREATED} & set(np.asarray(obs["perturbation"]).tolist()):
        raise ValueError(f'a perturbation is called "{taken.pop()}", which stands for untreated cells in exports')
    types = np.concatenate([obs["cell_type"], control_obs["cell_type"]])
    out = []
    if "cell-eval" in formats:
        for side, cells in (("real", real), ("pred", generated)):
            columns = {"target": np.where(names == CONTROL, UNTREATED, names), "cell_type": types}
            out.append(_write(folder, f"cell_eval_{side}.h5ad", np.concatenate([cells, control]), columns, genes))
    if "pertpy" in formats:
        groups = [np.char.add(obs["perturbation"].astype(str), f" | {side}") for side in ("real", "generated")]
        columns = {
            "group": np.concatenate([*groups, np.full(len(control), CONTROL)]),
            "perturbation": np.concatenate([obs["perturbation"], names]),
            "cell_type": np.concatenate([obs["cell_type"], types]),
        }
        cells = np.concatenate([real, generated, control])
        out.append(_write(folder, "pertpy.h5ad", cells, columns, genes, {"X_pca": space.transform(cells)}))
    return out


def write_embedded(
    folder: str | Path,
    *,
    expression: NDArray[np.float32],
    embeddings: Mapping[str, NDArray],
    obs: Mapping[str, NDArray],
    genes: Sequence[str],
) -> Path:
    """Held-out cells under several embeddings for ``scib_metrics.benchmark.Benchmarker``: ``scib_metrics.h5ad``.

    Parameters
    ----------
    expression
        log10(1 + normalised) expression [C, G].
    embeddings
        Key in ``obsm`` → embedding [C, D], e.g. ``X_c2s`` and ``X_pca``.
    obs
        ``cell_type`` and ``batch`` [C].
    """
    return _write(folder, "scib_metrics.h5ad", expression, obs, genes, embeddings)


def _write(
    folder: str | Path,
    name: str,
    expression: NDArray[np.float32],
    obs: Mapping[str, NDArray],
    genes: Sequence[str],
    obsm: Mapping[str, NDArray] | None = None,
) -> Path:
    import anndata
    import pandas as pd
    from scipy import sparse

    columns = {key: pd.Categorical(np.asarray(values).astype(str)) for key, values in obs.items()}
    index = pd.Index([f"cell_{i}" for i in range(len(expression))])
    adata = anndata.AnnData(
        sparse.csr_matrix(expression * np.float32(np.log(10))),
        obs=pd.DataFrame(columns, index=index),
        var=pd.DataFrame(index=pd.Index(list(genes))),
        obsm={key: np.asarray(value, np.float32) for key, value in (obsm or {}).items()},
    )
    adata.uns["log1p"] = {"base": float(np.e)}
    path = Path(folder) / name
    if jax.process_index():  # the first one writes for all
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".h5ad.new")
    adata.write_h5ad(new)
    os.replace(new, path)
    return path
