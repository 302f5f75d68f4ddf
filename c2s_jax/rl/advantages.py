"""From rewards to advantages."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from c2s_jax.rl.options import Scale

EPSILON = 1e-4  # added to the standard deviation, as TRL does


class Advantages(NamedTuple):
    """Of P groups of G completions.

    Attributes
    ----------
    values
        float32 [P * G]; 0 for a completion without a reward.
    zero_variance
        bool [P], groups whose rewards are all the same.
    """

    values: NDArray[np.float32]
    zero_variance: NDArray[np.bool_]


def group_advantages(rewards: NDArray[np.floating], num_generations: int, *, scale: Scale = "group") -> Advantages:
    """Rewards less their group's mean, over a standard deviation (ddof = 1) plus 1e-4.

    Parameters
    ----------
    rewards
        [P * G], the completions of a prompt one after the other; NaN for one without a reward, which takes no part in
        mean and deviation.
    num_generations
        G.
    scale
        Standard deviation of each ``"group"``, of the whole ``"batch"``, or ``"none"`` (Liu et al. 2025,
        arXiv:2503.20783).

    References
    ----------
    Shao et al. 2024, arXiv:2402.03300, section 4.1.2; constants as in TRL.
    """
    groups = np.asarray(rewards, np.float64).reshape(-1, num_generations)
    there = np.isfinite(groups)
    mean = _mean(groups, there)
    deviation = _deviation(groups, there)
    values = np.where(there, groups - mean, 0.0)
    if scale == "group":
        values = values / (deviation + EPSILON)
    elif scale == "batch":
        values = values / (_deviation(groups.reshape(1, -1), there.reshape(1, -1)) + EPSILON)
    # As ``torch.isclose``, not exactly 0: means of equal numbers are off by rounding.
    return Advantages(values.ravel().astype(np.float32), deviation[:, 0] <= 1e-8)


def _mean(values: NDArray, there: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(there, values, 0.0).sum(1, keepdims=True) / np.maximum(there.sum(1, keepdims=True), 1)


def _deviation(values: NDArray, there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sample standard deviation of each row's values that are there; 0 of fewer than two."""
    squares = np.where(there, values - _mean(values, there), 0.0) ** 2
    return np.sqrt(squares.sum(1, keepdims=True) / np.maximum(there.sum(1, keepdims=True) - 1, 1))
