"""Expression of cells that are known by their order of genes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.corpus import Corpus


def reconstruct(
    corpus: Corpus,
    lists: Sequence[NDArray[np.integer]],
    datasets: NDArray[np.integer],
    genes: NDArray[np.integer] | None = None,
) -> NDArray[np.float32]:
    """Expression (log10) [N, G] of gene lists, read off the rank→expression line of each one's data set.

    Parameters
    ----------
    lists
        Ids of each cell's genes, in order.
    datasets
        Number of the data set whose line is read, [N].
    genes
        Ids of the genes that are columns; None for all.
    """
    columns = slice(None) if genes is None else genes
    out = np.zeros((len(lists), len(corpus.genes) if genes is None else len(genes)), np.float32)
    for number in np.unique(datasets).tolist():
        rows = np.flatnonzero(datasets == number)
        made = corpus.rank_expressions[number].reconstruct([lists[i] for i in rows.tolist()], corpus.genes)
        out[rows] = made.tocsr()[:, columns].toarray()
    return out
