"""Statistics gathered block by block, and the conversion they lead to."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from c2s_jax.cells import CellDataError, expression_matrix
from c2s_jax.cells.conversion import conversion
from c2s_jax.cells.genes import gene_columns
from c2s_jax.cells.statistics import measure, merge_statistics, probe_rows, select


def counts_like(cells=230, genes=60, seed=0, share=0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.lognormal(0, 1.5, genes) * rng.lognormal(0, 0.7, (cells, 1)))
    x = x * (rng.random((cells, genes)) < share)
    x[:, 0] += 1
    return x.astype(np.float32)


def by_blocks(matrix, names, size, **options):
    """The statistics of a matrix, and its conversion, from blocks of `size` cells."""
    limits = {k: options.pop(k) for k in ("min_genes", "min_cells") if k in options}
    columns = gene_columns(names, "sum", [])
    starts = range(0, matrix.shape[0], size)
    parts = [measure(matrix[a : a + size], columns, first=a, n_cells=matrix.shape[0], **limits) for a in starts]
    found = merge_statistics(parts)
    decided = conversion(found, found.totals, columns, **options)
    merged = [decided.merged(matrix[a : a + size]) for a in starts]
    values = [decided.log10(m, found.totals[a : a + size]) for m, a in zip(merged, starts, strict=True)]
    return found, decided, sparse.vstack(merged), np.concatenate(values)


NAMES = [f"g{i}" for i in range(60)]
TWINS = [*NAMES[:-10], *(name.upper() for name in NAMES[:10])]
SCALES = {
    "counts": lambda x: x,
    "integers": lambda x: x.astype(np.uint16),
    "corrected counts": lambda x: x * np.float32(0.37),
    "normalised": lambda x: x / x.sum(1, keepdims=True) * 1e4,
    "log1p": lambda x: np.log1p(x / x.sum(1, keepdims=True) * 1e4),
    "float64 log2": lambda x: np.log2(1 + x.astype(np.float64) / x.sum(1, keepdims=True) * 1e4),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("names", [NAMES, TWINS], ids=["distinct", "twins"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_blocks_give_what_the_whole_gives_bit_for_bit(scale, names, size):
    values = SCALES[scale](counts_like())
    asked = "counts" if scale == "corrected counts" else "auto"
    cells = ad.AnnData(sparse.csr_matrix(values), var=pd.DataFrame(index=names))
    whole = expression_matrix(cells, scale=asked, duplicates="sum")
    _, decided, merged, log10 = by_blocks(cells.X, names, size, scale=asked)
    assert (decided.merged_scale.text, decided.target_sum) == (whole.scale, whole.target_sum)
    np.testing.assert_array_equal(log10, whole.matrix.data)
    np.testing.assert_array_equal(merged.data, whole.ranking_values)
    np.testing.assert_array_equal(merged.indices, whole.matrix.indices)
    assert len(whole.genes) == len({n.upper() for n in names})


def test_statistics_are_those_of_the_dense_matrix():
    x = counts_like()
    x[:, 5] = 0
    found, *_ = by_blocks(sparse.csr_matrix(x), NAMES, 16)
    np.testing.assert_array_equal(found.n_genes, (x > 0).sum(1))
    np.testing.assert_array_equal(found.totals, x.sum(1, dtype=float))
    np.testing.assert_array_equal(found.gene_cells, (x > 0).sum(0))
    assert (found.largest, found.whole) == (x.max(), True)
    probed = x[probe_rows(len(x))]
    np.testing.assert_array_equal(found.probe_values, probed[probed > 0])
    assert len(found.probe_lengths) == 64
    x[-1, 3] += 0.5
    assert not by_blocks(sparse.csr_matrix(x), NAMES, 16)[0].whole


@pytest.mark.parametrize("names", [NAMES, TWINS], ids=["distinct", "twins"])
@pytest.mark.parametrize(("min_genes", "min_cells"), [(0, 0), (14, 0), (0, 40), (12, 30), (1, 1)])
def test_selection_is_scanpys(names, min_genes, min_cells):
    x = counts_like()
    x[:, 5] = 0
    merged = pd.DataFrame(x.T).groupby([n.upper() for n in names], sort=False).sum().T.to_numpy()
    reference = ad.AnnData(merged.astype(np.float32))
    sc.pp.filter_cells(reference, min_genes=min_genes)
    sc.pp.filter_genes(reference, min_cells=min_cells)
    limits = {"min_genes": min_genes, "min_cells": min_cells}
    found = by_blocks(sparse.csr_matrix(x), names, 13, **limits)[0]
    chosen = select(found, **limits)
    assert np.flatnonzero(chosen.cells).tolist() == reference.obs_names.astype(int).tolist()
    assert np.flatnonzero(chosen.genes).tolist() == reference.var_names.astype(int).tolist()
    np.testing.assert_array_equal(chosen.n_genes[chosen.cells], (reference.X > 0).sum(1))
    np.testing.assert_array_equal(chosen.totals[chosen.cells], reference.X.sum(1))


@pytest.mark.parametrize("limits", [{"min_genes": 61}, {"min_cells": 231}])
def test_nothing_left(limits):
    found = by_blocks(sparse.csr_matrix(counts_like()), NAMES, 50, **limits)[0]
    with pytest.raises(CellDataError, match=f"{next(iter(limits))}=.*: nothing is left"):
        select(found, **limits)


def test_index_arrays_of_two_types():
    """Files of more than two thousand million entries have long offsets and short columns."""
    x = sparse.csr_matrix(counts_like())
    x.indptr = x.indptr.astype(np.int64)
    cells = ad.AnnData(x, var=pd.DataFrame(index=NAMES))
    expected = expression_matrix(ad.AnnData(x.toarray(), var=pd.DataFrame(index=NAMES)))
    np.testing.assert_array_equal(expression_matrix(cells).matrix.toarray(), expected.matrix.toarray())
