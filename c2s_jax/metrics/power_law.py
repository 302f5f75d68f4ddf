"""Power laws of the loss, ``L(x, …) = offset + Σ scale_k · x_k^−exponent_k``, fitted as in Hoffmann et al. 2022.

With one variable this is L(N) of parameters or L(D) of tokens; with both, equation 2 of arXiv:2203.15556. The fit
minimises the Huber loss (δ = 1e-3) of the logarithm of the loss, from many starts (their section D.2, equation 4).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import logsumexp

DELTA = 1e-3
SHARES = (0.05, 0.5, 0.9)  # of the smallest loss that is offset, to start from
EXPONENTS = (0.1, 0.4, 1.0)
STEEPEST = 5.0


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """A fitted law; ``offset`` is in the unit of the loss, ``scales`` and ``exponents`` have one entry a variable."""

    offset: float
    scales: tuple[float, ...]
    exponents: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"offset": self.offset, "scales": list(self.scales), "exponents": list(self.exponents)}

    def __call__(self, *variables: ArrayLike) -> NDArray[np.float64]:
        """Loss at these values, float64 of the variables' common shape."""
        if len(variables) != len(self.scales):
            raise ValueError(f"a law of {len(self.scales)} variables was given {len(variables)}")
        terms = zip(self.scales, self.exponents, variables)
        return np.asarray(self.offset + sum(s * np.asarray(x, np.float64) ** -e for s, e, x in terms))


def fit_power_law(variables: Sequence[ArrayLike], loss: ArrayLike) -> PowerLaw:
    """Fit a law to ``loss`` [P] at the points of ``variables``, each [P].

    Raises
    ------
    ValueError
        Fewer points than 1 + 2 · variables, or values that are not positive.
    """
    logs, centre, target = _checked(variables, loss)
    starts = itertools.product(SHARES, itertools.product(EXPONENTS, repeat=len(logs)))
    found = [_descend(_start(share, exponents, target), logs, target) for share, exponents in starts]
    return _law(min(found, key=lambda f: f[1])[0], centre)


def bootstrap_power_law(
    variables: Sequence[ArrayLike],
    loss: ArrayLike,
    law: PowerLaw,
    *,
    groups: ArrayLike | None = None,
    samples: int = 200,
    seed: int = 0,
) -> list[PowerLaw]:
    """Laws refitted to ``law`` with its residuals dealt out anew; their spread is that of the fit.

    Residuals are of the logarithm, centred, and enlarged by √(P / (P − parameters)). With ``groups`` [P], equally many
    points a group (the validations of one run, say), the residuals of a group stay together and in order.
    """
    logs, centre, target = _checked(variables, loss)
    fitted = np.log(law(*variables))
    parameters = 1 + 2 * len(logs)
    if len(target) <= parameters:
        raise ValueError(f"{len(target)} points leave no residuals beside {parameters} parameters")
    residuals = (target - fitted) * np.sqrt(len(target) / (len(target) - parameters))
    residuals -= residuals.mean()
    codes = np.arange(len(target)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(codes)
    if sizes.min() != sizes.max():
        raise ValueError(f"groups must have equally many points; they have {sizes.min()} to {sizes.max()}")
    order = np.argsort(codes, kind="stable").reshape(len(sizes), -1)
    rng = np.random.Generator(np.random.Philox(key=seed))
    start = _parameters(law, centre)
    out = []
    for _ in range(samples):
        drawn = np.empty_like(target)
        drawn[order] = fitted[order] + residuals[order[rng.integers(len(order), size=len(order))]]
        out.append(_law(_descend(start, logs, drawn)[0], centre))
    return out


def band(laws: Sequence[PowerLaw], *variables: ArrayLike, level: float = 0.9) -> tuple[NDArray, NDArray]:
    """Lower and upper end of the middle ``level`` of the laws' losses at these values."""
    losses = np.stack([law(*variables) for law in laws])
    low, high = np.quantile(losses, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _checked(variables: Sequence[ArrayLike], loss: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
    """Logarithms of the variables about their means [K, P], the means [K], and of the loss [P]."""
    values, target = np.asarray(variables, np.float64), np.asarray(loss, np.float64)
    if values.ndim != 2 or values.shape[1:] != target.shape:
        raise ValueError(f"variables {values.shape} and loss {target.shape} must be [K, P] and [P]")
    if len(target) < (needed := 1 + 2 * len(values)):
        raise ValueError(f"a law of {len(values)} variables has {needed} parameters; {len(target)} points are too few")
    if not (values > 0).all() or not (target > 0).all() or not np.isfinite(target).all():
        raise ValueError("variables and loss must be positive and finite")
    logs = np.log(values)
    centre = logs.mean(axis=1)
    return logs - centre[:, None], centre, np.log(target)


def _start(share: float, exponents: Sequence[float], target: NDArray) -> NDArray:
    least, mean = np.exp(target.min()), np.exp(target.mean())
    rest = max((mean - share * least) / len(exponents), 1e-6)
    return np.array([np.log(share * least), *[np.log(rest)] * len(exponents), *exponents])


def _descend(start: NDArray, logs: NDArray, target: NDArray) -> tuple[NDArray, float]:
    """Parameters (log offset, log scales about the means, exponents) and the cost they come to."""
    k = len(logs)

    def residuals(p: NDArray) -> NDArray:
        terms = p[1 : k + 1, None] - p[k + 1 :, None] * logs
        return logsumexp(np.vstack([np.full(len(target), p[0]), terms]), axis=0) - target

    low = np.array([-30.0] * (k + 1) + [0.0] * k)
    high = np.array([target.min()] + [30.0] * k + [STEEPEST] * k)
    inside = np.clip(start, low + 1e-9, high - 1e-9)
    found = least_squares(residuals, inside, bounds=(low, high), loss="huber", f_scale=DELTA, x_scale="jac")
    return found.x, float(found.cost)


def _law(parameters: NDArray, centre: NDArray) -> PowerLaw:
    k = len(centre)
    exponents = parameters[k + 1 :]
    scales = np.exp(parameters[1 : k + 1] + exponents * centre)
    return PowerLaw(float(np.exp(parameters[0])), tuple(scales.tolist()), tuple(exponents.tolist()))


def _parameters(law: PowerLaw, centre: NDArray) -> NDArray:
    exponents = np.array(law.exponents)
    return np.concatenate([[np.log(law.offset)], np.log(law.scales) - exponents * centre, exponents])
