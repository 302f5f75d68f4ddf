"""Other sentences of the same cell: ties re-drawn, genes dropped, expression jittered."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.ragged import offsets


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training sentences vary; all off by default.

    Attributes
    ----------
    shuffle_ties
        Draw the order of equally expressed genes anew for each example.
    gene_dropout
        Largest share of a cell's genes left out; each example draws its share uniformly below it.
    jitter
        Standard deviation of Gaussian noise added to log10 expression before ranking.
    """

    shuffle_ties: bool = False
    gene_dropout: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.gene_dropout < 1.0 or self.jitter < 0.0:
            raise ValueError(f"gene_dropout must be in [0, 1) and jitter >= 0, got {self}")

    @property
    def active(self) -> bool:
        """Whether anything changes at all."""
        return self.shuffle_ties or self.gene_dropout > 0 or self.jitter > 0


def augment(
    genes: NDArray[np.int32],
    expression: NDArray,
    indptr: NDArray[np.int64],
    settings: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Re-rank ragged cells under ``settings``: genes and indptr of the new sentences."""
    lengths = np.diff(indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    value = expression.astype(np.float32)
    if settings.jitter:
        value = value + rng.normal(0.0, settings.jitter, value.shape).astype(np.float32)
    if settings.gene_dropout:
        share = rng.uniform(0.0, settings.gene_dropout, len(lengths))
        keep = rng.random(len(row)) >= share[row]
        genes, value, row = genes[keep], value[keep], row[keep]
    tie = rng.random(len(row)) if settings.shuffle_ties else np.arange(len(row))
    order = np.lexsort((tie, -value, row))
    return genes[order], offsets(np.bincount(row, minlength=len(lengths)))
