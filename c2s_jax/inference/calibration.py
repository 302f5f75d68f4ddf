"""Probabilities that mean what they say: one temperature, fitted on cells whose answer is known."""

import warnings
from typing import Any

import anndata as ad
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from c2s_jax.cells.errors import shown
from c2s_jax.inference.annotation import candidates, score
from c2s_jax.inference.language_model import LanguageModel

BOUNDS = (np.log(0.05), np.log(20.0))  # of the logarithm of a temperature


def fit_temperature(logprobs: Float[NDArray, "C L"], truth: Int[NDArray, "C"]) -> float:
    """The temperature T at which ``softmax(logprobs / T)`` gives the true answers most probability.

    Guo et al. 2017, arXiv:1706.04599, section 4.2: the mean negative log-likelihood is least. The order of the labels
    does not change. It stays within 0.05 to 20, where cells that are all answered rightly would drive it to 0.

    Parameters
    ----------
    logprobs
        Log-probabilities of the candidates, normalised or not.
    truth
        The right candidate of each cell.
    """
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logprobs / np.exp(log_temperature), axis=1)[rows, truth].mean())

    return float(np.exp(minimize_scalar(loss, bounds=BOUNDS, method="bounded").x))


def calibrate(
    model: LanguageModel,
    adata: ad.AnnData,
    truth: str,
    labels: Any,
    *,
    n_prompts: int,
    resume: Any,
    progress: bool,
    **reading: Any,
) -> float:
    """See ``Model.calibrate``."""
    if truth not in adata.obs:
        raise ValueError(f"adata.obs has no column {truth!r} with the cells' types; it has {', '.join(adata.obs)}")
    chosen = candidates(model, labels)
    if chosen is None:
        raise ValueError("this model brings no labels to choose from: give the candidates, labels=[…]")
    scored = score(model, adata, chosen, n_prompts, resume, progress, reading)
    scored.inquiry.warn()
    number = {label: i for i, label in enumerate(chosen)}
    column = adata.obs[truth].astype(str)
    codes = np.array([number.get(value.strip(), -1) for value in column])
    if unknown := sorted(set(column[codes < 0])):
        warnings.warn(
            f"{(codes < 0).sum()} cells whose {truth} is no candidate do not count: {shown(unknown, 3)}",
            UserWarning,
            stacklevel=3,
        )
    used = (codes >= 0) & ~np.isnan(scored.mass)
    if not used.any():
        raise ValueError(f"no cell's {truth} is one of the {len(chosen)} candidates: {shown(chosen, 3)}")
    return fit_temperature(scored.logprobs[used].astype(np.float64), codes[used])
