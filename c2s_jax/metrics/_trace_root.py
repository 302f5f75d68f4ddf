"""The Fréchet distance between two Gaussians by eigenvalues alone, on the host, where that is exact enough."""

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import lapack

_ACCURACY = 1e-7


def distance_by_eigenvalues(
    mean_gap: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64]
) -> float | None:
    """``|mean_gap|^2 + tr(S_l + S_r - 2 (S_l S_r)^(1/2))`` of covariances [d, d], or None.

    With ``S_l = L L^T`` the last trace is the sum of the square roots of the eigenvalues of ``L^T S_r L``. One Cholesky
    decomposition and eigenvalues without vectors take an eighth of what ``scipy.linalg.sqrtm`` takes; but an eigenvalue
    is known to rounding of the largest one only, and a root of one that is rounding alone is nothing. None where that
    may cost more than a relative 1e-7: singular and ill-conditioned covariances, and distances that nearly cancel.
    """
    try:
        lower = linalg.cholesky(left, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    between, _ = lapack.dsygst(right, lower, itype=2, lower=1)
    values = linalg.eigvalsh(between, lower=True, check_finite=False, overwrite_a=True)
    if values[0] <= 0:
        return None
    roots = np.sqrt(values)
    distance = float(mean_gap @ mean_gap + np.trace(left) + np.trace(right) - 2 * roots.sum())
    doubt = values.size * np.finfo(np.float64).eps * values[-1] * np.sum(1 / roots)
    return distance if doubt < _ACCURACY * distance else None
