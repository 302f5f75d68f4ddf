"""Ranking, against sorts written out cell by cell."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.utils import shuffle

from c2s_jax.cells import CellDataError, cell_sentences, hash_strings, rank_cells, ranking

_MASK = 2**64 - 1


def _key(cell: str, gene: str, seed: int) -> int:
    """SplitMix64's finaliser on the BLAKE2b of both names, in Python's integers."""

    def digest(text: str, person: bytes) -> int:
        key = seed.to_bytes(8, "little", signed=True)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key, person=person).digest(), "little")

    x = digest(cell, b"cell") ^ digest(gene.upper(), b"gene")
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _by_hand(dense, cells, genes, seed=0, key=_key):
    return [
        sorted(
            np.flatnonzero(row).tolist(),
            key=lambda g, i=i, row=row: (-row[g].item(), key(cells[i], genes[g], seed)),
        )
        for i, row in enumerate(dense)
    ]


def _lists(ranked):
    return [cell.tolist() for cell in ranked]


def _names(n, prefix):
    return [f"{prefix}{i}" for i in range(n)]


@st.composite
def matrices(draw):
    cells, genes = draw(st.integers(0, 8)), draw(st.integers(1, 40))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int64, np.uint16, np.int8]))
    kind = draw(st.sampled_from(["counts", "floats", "nearly equal"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dense = rng.geometric(0.4, (cells, genes)) - 1.0
    if np.dtype(dtype).kind == "f" and kind == "floats":
        dense *= rng.random((cells, 1)) + 0.5
    if dtype == np.float64 and kind == "nearly equal":
        # apart in float64, equal in float32
        dense += (dense > 0) * rng.integers(0, 3, dense.shape) * 1e-12
    dense *= rng.random((cells, 1)) > 0.2
    return dense.astype(dtype)


@settings(max_examples=150, deadline=None)
@given(matrices(), st.integers(-3, 3))
def test_rank_cells_is_a_sort_by_value_then_key(dense, seed):
    cells, genes = _names(dense.shape[0], "cell"), _names(dense.shape[1], "Gene")
    ranked = rank_cells(sparse.csr_matrix(dense), cells, genes, seed=seed)
    assert _lists(ranked) == _by_hand(dense, cells, genes, seed)
    assert ranked.indptr.dtype == np.int64
    assert ranked.genes.dtype == np.int32
    rows = np.repeat(np.arange(len(ranked)), np.diff(ranked.indptr))
    np.testing.assert_array_equal(ranked.values, dense[rows, ranked.genes])


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_cell2sentence_is_a_shuffle_then_a_stable_sort(dense):
    matrix = sparse.csr_matrix(dense)
    np.random.seed(42)  # noqa: NPY002
    expected = []
    for i in range(len(dense)):
        columns, values = matrix[i].indices, matrix[i].data
        columns, values = shuffle(columns, values)
        expected.append(columns[np.argsort(-values, kind="stable")].tolist())
    ranked = rank_cells(matrix, _names(dense.shape[0], "c"), _names(dense.shape[1], "G"), ties="cell2sentence")
    assert _lists(ranked) == expected


def test_rank_by_ranks_by_other_values_than_it_gives():
    rng = np.random.default_rng(4)
    matrix = sparse.random(20, 60, 0.5, format="csr", dtype=np.float32, rng=rng)
    cells, genes = _names(20, "c"), _names(60, "G")
    by = matrix.copy().astype(np.float64)
    by.data = rng.integers(1, 4, by.nnz) * 0.1 + rng.integers(0, 2, by.nnz) * 1e-12
    for ties in ("hash", "cell2sentence"):
        expected = rank_cells(by, cells, genes, ties=ties)
        ranked = ranking.rank_by(matrix, by.data, cells, genes, ties=ties)
        np.testing.assert_array_equal(ranked.genes, expected.genes)
        rows = np.repeat(np.arange(20), np.diff(ranked.indptr))
        np.testing.assert_array_equal(ranked.values, matrix.toarray()[rows, ranked.genes])
        top = ranking.rank_by(matrix, by.data, cells, genes, ties=ties, top_k=7)
        np.testing.assert_array_equal(top.genes, ranked.top(7).genes)
        np.testing.assert_array_equal(top.values, ranked.top(7).values)
        np.testing.assert_array_equal(top.indptr, ranked.top(7).indptr)
    for bad in (0, -1, np.nan, np.inf):
        by.data[3] = bad
        for ties in ("hash", "cell2sentence"):
            with pytest.raises(CellDataError, match="not above 0 and finite"):
                ranking.rank_by(matrix, by.data, cells, genes, ties=ties)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int32, np.uint32, np.uint64])
def test_kinds_of_values(dtype):
    dense = np.random.default_rng(5).integers(0, 4, (6, 50)).astype(dtype)
    cells, genes = _names(6, "c"), _names(50, "G")
    ranked = rank_cells(sparse.csr_matrix(dense), cells, genes)
    assert _lists(ranked) == _by_hand(dense, cells, genes)
    assert ranked.values.dtype == dtype
    np.testing.assert_array_equal(ranked.values, dense[np.repeat(np.arange(6), np.diff(ranked.indptr)), ranked.genes])


def test_equal_names_keep_the_order_of_the_columns():
    dense = np.ones((3, 40), np.float32)
    genes = ["Cd4", "CD4", "cd4", "LYZ"] * 10
    ranked = rank_cells(sparse.csr_matrix(dense), _names(3, "c"), genes)
    assert _lists(ranked) == _by_hand(dense, _names(3, "c"), genes)


def test_order_of_cells_and_genes_and_other_cells_do_not_matter():
    rng = np.random.default_rng(2)
    dense = rng.integers(0, 3, (30, 80)).astype(np.float32)
    cells, genes = np.array(_names(30, "cell")), np.array(_names(80, "GENE"))
    sentences = dict(zip(cells, _words(dense, cells, genes), strict=True))
    rows, columns = rng.permutation(30)[:17], rng.permutation(80)
    again = _words(dense[np.ix_(rows, columns)], cells[rows], genes[columns])
    assert again == [sentences[cell] for cell in cells[rows]]


def _words(dense, cells, genes):
    return [genes[ids].tolist() for ids in rank_cells(sparse.csr_matrix(dense), cells, genes)]


def test_ties_depend_on_seed_cell_and_gene_and_values_come_first():
    flat = sparse.csr_matrix(np.ones((2, 50), np.float32))
    genes = _names(50, "G")
    first, second = rank_cells(flat, ["a", "b"], genes)
    assert first.tolist() != second.tolist()
    assert first.tolist() != sorted(first.tolist())
    assert rank_cells(flat, ["a", "b"], genes, seed=1)[0].tolist() != first.tolist()
    assert rank_cells(flat, ["a", "a"], genes)[1].tolist() == first.tolist()
    rising = sparse.csr_matrix(np.arange(1, 51, dtype=np.float32)[None])
    assert rank_cells(rising, ["a"], genes)[0].tolist() == list(range(49, -1, -1))


def test_ties_are_fair():
    """Of 50 equal genes each is first in about 1/50 of 5,000 cells (χ², 49 degrees of freedom)."""
    flat = sparse.csr_matrix(np.ones((5000, 50), np.float32))
    ranked = rank_cells(flat, _names(5000, "cell"), _names(50, "G"), top_k=1)
    counts = np.bincount(ranked.genes, minlength=50)
    assert ((counts - 100) ** 2 / 100).sum() < 94  # p = 1e-4


def test_hashes_never_change():
    """Corpora and tests of others depend on these numbers."""
    assert hash_strings(["CD3D", "LYZ"], domain="gene").tolist() == [
        18070851663906756776,
        9964507557639172228,
    ]
    assert hash_strings(["CD3D"], domain="cell") != hash_strings(["CD3D"], domain="gene")
    assert hash_strings([]).shape == (0,)


def test_top_k():
    dense = np.array([[3, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 0]], np.float32)
    matrix = sparse.csr_matrix(dense)
    ranked = rank_cells(matrix, ["a", "b", "c"], _names(4, "G"), top_k=2)
    assert _lists(ranked) == [[0, 2], [2], []]
    assert ranked.values.tolist() == [3, 2, 5]
    assert ranked.ranks.tolist() == [0, 1, 0]
    assert ranked[-1].tolist() == []
    with pytest.raises(IndexError):
        ranked[3]
    with pytest.raises(CellDataError, match="at least 1"):
        ranked.top(0)


def test_unsorted_columns_and_stored_zeros():
    matrix = sparse.csr_matrix((np.array([1.0, 0.0, 4.0, 2.0]), np.array([3, 1, 0, 2]), np.array([0, 4])), (1, 4))
    assert _lists(rank_cells(matrix, ["a"], _names(4, "G"))) == [[0, 2, 3]]
    assert matrix.nnz == 4


def test_bad_input():
    matrix = sparse.csr_matrix(np.eye(2, dtype=np.float32))
    with pytest.raises(CellDataError, match="CSR"):
        rank_cells(matrix.tocsc(), ["a", "b"], ["G", "H"])
    with pytest.raises(CellDataError, match="2 cells and 2 genes, but there are 1 cell ids and 2 gene names"):
        rank_cells(matrix, ["a"], ["G", "H"])
    for bad in (np.nan, -1.0, np.inf):
        with pytest.raises(CellDataError, match="NaN, infinite or negative"):
            rank_cells(matrix * bad, ["a", "b"], ["G", "H"])
    with pytest.raises(CellDataError, match="'hash' or 'cell2sentence'"):
        rank_cells(matrix, ["a", "b"], ["G", "H"], ties="random")
    with pytest.raises(CellDataError, match="complex64 cannot be ranked"):
        rank_cells(matrix.astype(np.complex64), ["a", "b"], ["G", "H"])
    with pytest.raises(CellDataError, match="at least 1, it is 0"):
        rank_cells(matrix, ["a", "b"], ["G", "H"], top_k=0)


@pytest.mark.parametrize("column", [-1, 2])
def test_columns_outside_the_genes(column):
    matrix = sparse.csr_matrix(np.eye(2, dtype=np.float32))
    matrix.indices[1] = column
    with pytest.raises(CellDataError, match="column number outside 0 … 1"):
        rank_cells(matrix, ["a", "b"], ["G", "H"])


def test_broken_rows():
    matrix = sparse.csr_matrix(np.eye(3, dtype=np.float32))
    matrix.indptr[1] = 3
    with pytest.raises(CellDataError, match="arrays do not fit"):
        rank_cells(matrix, list("abc"), list("GHI"))


def test_real_cells_as_the_reference_library_writes_them(pbmc):
    """With cell2sentence itself, where it is installed."""
    reference = pytest.importorskip("cell2sentence.utils", exc_type=ImportError)
    cells = pbmc.raw.to_adata()
    expected = reference.generate_sentences(cells, reference.generate_vocabulary(cells))
    assert cell_sentences(cells, ties="cell2sentence") == expected


def test_real_cells_as_a_shuffle_and_stable_sort_write_them(pbmc):
    cells = pbmc.raw.to_adata()
    matrix = cells.X.copy()
    # columns are stored unsorted here; the library's X > 0, when it makes its vocabulary, sorts them in place
    matrix.sort_indices()
    np.random.seed(42)  # noqa: NPY002
    names, expected = np.array([name.upper() for name in cells.var_names]), []
    for i in range(cells.n_obs):
        columns, values = shuffle(matrix[i].indices, matrix[i].data)
        expected.append(" ".join(names[columns[np.argsort(-values, kind="stable")]]))
    assert cell_sentences(cells, ties="cell2sentence") == expected
    assert cell_sentences(cells) != expected
