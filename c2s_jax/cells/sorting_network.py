"""Sorting of many short columns side by side."""

import numpy as np

from c2s_jax.jit import compiled

LANES = 16
"""Columns sorted together: one SIMD register of 32-bit words, or two or four smaller ones."""
DEPTH = 16
"""Words a column."""


@compiled
def sort_columns(table: np.ndarray, first: int) -> None:
    """Sort `LANES` columns of `DEPTH` words in place; word k of column b is `table[first + k · LANES + b]`.

    Batcher's odd-even merge sort (1968, doi:10.1145/1468075.1468121), 63 comparisons without a branch.
    """
    t = table[first : first + LANES * DEPTH]
    for b in range(LANES):
        x0, x1, x2, x3 = t[b], t[16 + b], t[32 + b], t[48 + b]
        x4, x5, x6, x7 = t[64 + b], t[80 + b], t[96 + b], t[112 + b]
        x8, x9, xa, xb = t[128 + b], t[144 + b], t[160 + b], t[176 + b]
        xc, xd, xe, xf = t[192 + b], t[208 + b], t[224 + b], t[240 + b]

        (x0, x1), (x2, x3), (x4, x5), (x6, x7) = _pair(x0, x1), _pair(x2, x3), _pair(x4, x5), _pair(x6, x7)
        (x8, x9), (xa, xb), (xc, xd), (xe, xf) = _pair(x8, x9), _pair(xa, xb), _pair(xc, xd), _pair(xe, xf)
        (x0, x2), (x1, x3), (x4, x6), (x5, x7) = _pair(x0, x2), _pair(x1, x3), _pair(x4, x6), _pair(x5, x7)
        (x8, xa), (x9, xb), (xc, xe), (xd, xf) = _pair(x8, xa), _pair(x9, xb), _pair(xc, xe), _pair(xd, xf)
        (x1, x2), (x5, x6), (x9, xa), (xd, xe) = _pair(x1, x2), _pair(x5, x6), _pair(x9, xa), _pair(xd, xe)
        (x0, x4), (x1, x5), (x2, x6), (x3, x7) = _pair(x0, x4), _pair(x1, x5), _pair(x2, x6), _pair(x3, x7)
        (x8, xc), (x9, xd), (xa, xe), (xb, xf) = _pair(x8, xc), _pair(x9, xd), _pair(xa, xe), _pair(xb, xf)
        (x2, x4), (x3, x5), (xa, xc), (xb, xd) = _pair(x2, x4), _pair(x3, x5), _pair(xa, xc), _pair(xb, xd)
        (x1, x2), (x3, x4), (x5, x6), (x9, xa) = _pair(x1, x2), _pair(x3, x4), _pair(x5, x6), _pair(x9, xa)
        (xb, xc), (xd, xe) = _pair(xb, xc), _pair(xd, xe)
        (x0, x8), (x1, x9), (x2, xa), (x3, xb) = _pair(x0, x8), _pair(x1, x9), _pair(x2, xa), _pair(x3, xb)
        (x4, xc), (x5, xd), (x6, xe), (x7, xf) = _pair(x4, xc), _pair(x5, xd), _pair(x6, xe), _pair(x7, xf)
        (x4, x8), (x5, x9), (x6, xa), (x7, xb) = _pair(x4, x8), _pair(x5, x9), _pair(x6, xa), _pair(x7, xb)
        (x2, x4), (x3, x5), (x6, x8), (x7, x9) = _pair(x2, x4), _pair(x3, x5), _pair(x6, x8), _pair(x7, x9)
        (xa, xc), (xb, xd) = _pair(xa, xc), _pair(xb, xd)
        (x1, x2), (x3, x4), (x5, x6), (x7, x8) = _pair(x1, x2), _pair(x3, x4), _pair(x5, x6), _pair(x7, x8)
        (x9, xa), (xb, xc), (xd, xe) = _pair(x9, xa), _pair(xb, xc), _pair(xd, xe)

        t[b], t[16 + b], t[32 + b], t[48 + b] = x0, x1, x2, x3
        t[64 + b], t[80 + b], t[96 + b], t[112 + b] = x4, x5, x6, x7
        t[128 + b], t[144 + b], t[160 + b], t[176 + b] = x8, x9, xa, xb
        t[192 + b], t[208 + b], t[224 + b], t[240 + b] = xc, xd, xe, xf


@compiled
def _pair(x: int, y: int) -> tuple[int, int]:
    return min(x, y), max(x, y)
