"""Confidence intervals by resampling, of any statistic that JAX can compute."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2s_jax.data.permute import keys, uniform


@dataclass(frozen=True)
class Interval:
    """A statistic with its bootstrap.

    Attributes
    ----------
    estimate
        Of the samples as they are.
    low, high
        Percentile interval of the resamples.
    standard_error
        Their standard deviation.
    bias
        Their mean minus the estimate. Distances between samples grow when cells repeat (scFID with few cells does
        so a lot); where the bias is as large as the interval is wide, read the width, not the place.
    level
        Of the interval.
    n
        Size of each sample.
    resamples
        How many.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    bias: float
    level: float
    n: tuple[int, ...]
    resamples: int


def bootstrap(
    statistic: Callable[..., Any],
    *samples: ArrayLike,
    resamples: int = 1000,
    level: float = 0.95,
    paired: bool = False,
    seed: int = 0,
    at_once: int = 16,
) -> Interval:
    """Percentile bootstrap (Efron 1979, Ann. Stat. 7:1) of ``statistic(*samples)``.

    Parameters
    ----------
    statistic
        A JAX function of the arrays that gives a scalar, ``scfid_on_device`` or ``jnp.mean`` say. Give the same
        function object again to compile once.
    samples
        Arrays whose first axis is what is resampled with replacement: cells, or the values of conditions.
    paired
        Resample all samples alike (they have one length), not each on its own.
    seed
        Resample b draws from ``jax.random`` keyed by (seed, b), however many are asked for.
    at_once
        Resamples computed side by side.
    """
    arrays = tuple(np.asarray(x) for x in samples)
    n = tuple(len(x) for x in arrays)
    if not arrays or min(n) < 2:
        raise ValueError(f"a bootstrap needs samples of at least 2, got sizes {n}")
    if paired and len(set(n)) > 1:
        raise ValueError(f"paired samples have one size, got {n}")
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"level must be within (0, 1) and resamples at least 2, got {level} and {resamples}")
    estimate, values = _resampled(statistic, arrays, np.arange(resamples), jax.random.key(seed), paired, at_once)
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"the statistic is NaN or infinite in {int((~np.isfinite(values)).sum())} resamples")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        float(estimate),
        float(low),
        float(high),
        float(values.std(ddof=1)),
        float(values.mean() - float(estimate)),
        level,
        n,
        resamples,
    )


@functools.partial(jax.jit, static_argnames=("statistic", "paired", "at_once"))
def _resampled(
    statistic: Callable[..., Any], arrays: tuple[Any, ...], numbers: Any, key: jax.Array, paired: bool, at_once: int
) -> tuple[jax.Array, jax.Array]:
    def one(number: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, number)
        keys = [own] * len(arrays) if paired else list(jax.random.split(own, len(arrays)))
        return statistic(*(x[jax.random.randint(k, (len(x),), 0, len(x))] for k, x in zip(keys, arrays)))

    return statistic(*arrays), jax.lax.map(one, numbers, batch_size=at_once)


def cell_weights(key: ArrayLike, *, resamples: int, seed: int = 0) -> NDArray[np.float64]:
    """Weights of cells in a Bayesian bootstrap (Rubin 1981, Ann. Stat. 9:130): [resamples, n], each row sums to 1.

    They are drawn from the flat Dirichlet distribution: in the mean over cells as varied as counts of drawing with
    replacement, but no cell is ever lost. ``weights @ values`` are all resampled means at once.

    Parameters
    ----------
    key
        What names each cell, integers [n]. A cell's share in a resample hangs on its key and `seed` alone, so that one
        that stands on several sides counts alike on all of them.
    """
    numbers = keys(seed, np.arange(resamples))[:, None]
    drawn = -np.log1p(-uniform(np.asarray(key).astype(np.uint64), numbers))
    return drawn / drawn.sum(axis=1, keepdims=True)


def shifted_interval(estimate: float, values: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled values [R], moved by the bias of resampling: their mean lies on the estimate."""
    drawn = np.asarray(values, np.float64)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - (drawn.mean() - estimate)
    return float(low), float(high)
