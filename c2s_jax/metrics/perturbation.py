"""What a perturbation did to expression, predicted against measured."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from c2s_jax.metrics._checks import embedding_array


@dataclass(frozen=True)
class DeltaCorrelation:
    """Correlation over genes of predicted and measured change of mean expression; 0 where a change is constant."""

    pearson: float
    spearman: float
    n_genes: int


def delta_correlation(real: ArrayLike, generated: ArrayLike, control: ArrayLike) -> DeltaCorrelation:
    """Correlate ``mean(generated) - mean(control)`` with ``mean(real) - mean(control)`` over genes.

    Parameters
    ----------
    real, generated, control
        Log expression [cells, G] of perturbed cells, predicted ones, and the control cells both are compared with.
    """
    perturbed, predicted, unperturbed = _three(real, generated, control)
    base = unperturbed.mean(axis=0, dtype=np.float64)
    measured, guessed = (x.mean(axis=0, dtype=np.float64) - base for x in (perturbed, predicted))
    if len(base) < 2 or np.ptp(measured) == 0 or np.ptp(guessed) == 0:
        return DeltaCorrelation(0.0, 0.0, len(base))
    return DeltaCorrelation(
        float(stats.pearsonr(measured, guessed).statistic),
        float(stats.spearmanr(measured, guessed).statistic),
        len(base),
    )


def de_overlap(
    real: ArrayLike,
    generated: ArrayLike,
    control: ArrayLike,
    *,
    k: int = 50,
    method: Literal["t-test", "wilcoxon"] = "t-test",
) -> float:
    """Share of the k most differentially expressed genes of real cells that are among the k of generated ones.

    Both against `control`; arguments as in `delta_correlation`. Chance is about k / G.
    """
    perturbed, predicted, unperturbed = _three(real, generated, control)
    if not 1 <= k <= perturbed.shape[1]:
        raise ValueError(f"k must be between 1 and the {perturbed.shape[1]} genes, got {k}")
    top = [set(de_genes(x, unperturbed, method=method)[:k].tolist()) for x in (perturbed, predicted)]
    return len(top[0] & top[1]) / k


def de_genes(
    treated: ArrayLike, control: ArrayLike, *, method: Literal["t-test", "wilcoxon"] = "t-test"
) -> NDArray[np.int64]:
    """Genes (columns) by falling absolute score of scanpy's ``rank_genes_groups``, treated against control cells."""
    import anndata
    import scanpy as sc

    sides = embedding_array(treated, "treated"), embedding_array(control, "control")
    for name, cells in zip(("treated", "control"), sides):
        if len(cells) < 2:
            raise ValueError(f"a test needs at least 2 {name} cells, got {len(cells)}")
    both = anndata.AnnData(np.concatenate(sides))
    both.obs["group"] = np.repeat(["treated", "control"], [len(x) for x in sides])
    both.obs["group"] = both.obs["group"].astype("category")
    both.uns["log1p"] = {"base": 10}
    with np.errstate(invalid="ignore"):  # fold changes of values below 0, which are not read here
        sc.tl.rank_genes_groups(both, "group", groups=["treated"], reference="control", method=method, rankby_abs=True)
    return np.asarray(both.uns["rank_genes_groups"]["names"]["treated"]).astype(np.int64)


def _three(real: Any, generated: Any, control: Any) -> tuple[NDArray, NDArray, NDArray]:
    arrays = (
        embedding_array(real, "real"),
        embedding_array(generated, "generated"),
        embedding_array(control, "control"),
    )
    if len({x.shape[1] for x in arrays}) > 1 or not all(len(x) for x in arrays):
        raise ValueError(f"real, generated and control need cells of the same genes, got {[x.shape for x in arrays]}")
    return arrays
