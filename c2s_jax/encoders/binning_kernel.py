"""The loop that bins cells, one after another."""

import math

import numpy as np

from c2s_jax.jit import compiled


@compiled
def bin_cells(values: np.ndarray, indptr: np.ndarray, uniforms: np.ndarray, grid: np.ndarray, bins: np.ndarray) -> None:
    """Fill ``bins`` (int64 [N]); see ``binning.bin_values``.

    ``values`` are float32 [N], ``uniforms`` float64 [N], ``grid`` the quantiles that are edges. These are NumPy's bit
    for bit: differences in float32, the rest in float64, and the nearer neighbour first.
    """
    edges = np.empty(len(grid))
    for cell in range(len(indptr) - 1):
        start, stop = indptr[cell], indptr[cell + 1]
        last = stop - start - 1
        if last < 0:
            continue
        ordered = np.sort(values[start:stop])
        for k in range(len(grid)):
            place = last * grid[k]
            low = int(place)
            t = place - low
            a, b = ordered[low], ordered[min(low + 1, last)]
            edges[k] = b - (b - a) * (1.0 - t) if t >= 0.5 else a + (b - a) * t
        for i in range(start, stop):
            left, above = 0, len(edges)  # edges at most the value, and one that is not
            while left < above:
                middle = (left + above) // 2
                if edges[middle] <= values[i]:
                    left = middle + 1
                else:
                    above = middle
            right = left
            while right > 0 and edges[right - 1] == values[i]:
                right -= 1
            bins[i] = math.ceil(uniforms[i] * (right - left) + left)
