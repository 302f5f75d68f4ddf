import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer

from c2s_jax.data import Augmentation
from c2s_jax.data.augment import inverse_document_frequency, sentences
from c2s_jax.data.permute import keys

ALL = 10**9


@pytest.fixture
def block(make_cells):
    return make_cells(30, (1, 60)).take(np.arange(30))


def run(block, settings=Augmentation(), seed=0, most=ALL, order="expression", idf=None):
    n = len(block)
    key = keys(seed, np.arange(n))
    genes, indptr = sentences(block, np.broadcast_to(most, n).astype(np.int64), key, settings, order, idf)
    return np.split(genes, indptr[1:-1])


def stored(block):
    return np.split(block.genes, block.indptr[1:-1])


def value_of(block, row):
    part = slice(block.indptr[row], block.indptr[row + 1])
    return dict(zip(block.genes[part].tolist(), block.expression[part].tolist()))


def test_off_is_the_stored_order(block):
    for new, old in zip(run(block), stored(block)):
        np.testing.assert_array_equal(new, old)
    for new, old in zip(run(block, most=np.arange(30)), stored(block)):
        np.testing.assert_array_equal(new, old[: len(new)])
    assert [len(x) for x in run(block, most=7)] == [min(7, len(x)) for x in stored(block)]


def test_ties_only(block):
    moved = 0
    for row, (new, old) in enumerate(zip(run(block, Augmentation(shuffle_ties=True)), stored(block))):
        value = value_of(block, row)
        assert sorted(new) == sorted(old)
        assert [value[g] for g in new] == [value[g] for g in old]
        moved += int((new != old).sum())
    assert moved > 50
    assert any(
        (a != b).any()
        for a, b in zip(run(block, Augmentation(shuffle_ties=True), 1), run(block, Augmentation(shuffle_ties=True), 2))
    )


def test_ties_are_shuffled_before_the_cut(block):
    """Of genes tied at the cut, any may stay."""
    whole = run(block, Augmentation(shuffle_ties=True))
    cut = run(block, Augmentation(shuffle_ties=True), most=9)
    for new, old in zip(cut, whole):
        np.testing.assert_array_equal(new, old[:9])
    kept = [set(run(block, Augmentation(shuffle_ties=True), seed, most=9)[3].tolist()) for seed in range(200)]
    value = value_of(block, 3)
    at_the_cut = sorted(value.values(), reverse=True)[8]
    tied = {g for g, v in value.items() if v == at_the_cut}
    assert len(tied) > 1
    assert set.union(*kept) == {g for g, v in value.items() if v >= at_the_cut}


def test_every_order_of_ties_comes_alike():
    genes, n = np.arange(3, dtype=np.int32), 6000
    block = type("Block", (), {"genes": np.tile(genes, n), "indptr": np.arange(n + 1) * 3})()
    block.expression = np.zeros(3 * n, np.float16)
    orders = np.array(run_many(block, n))
    counts = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    assert len(counts) == 6
    np.testing.assert_allclose(counts / n, 1 / 6, atol=0.02)


def run_many(block, n):
    key = keys(0, np.arange(n))
    genes, _ = sentences(block, np.full(n, ALL), key, Augmentation(shuffle_ties=True))
    return genes.reshape(n, 3)


def test_a_sentence_depends_on_its_key_alone(block):
    settings = Augmentation(shuffle_ties=True, gene_dropout=0.4, jitter=0.2)
    key = keys(5, np.arange(30))
    genes, indptr = sentences(block, np.full(30, 20), key, settings)
    whole = np.split(genes, indptr[1:-1])
    some = np.array([17, 3, 29])
    lengths = np.diff(block.indptr)[some]
    parts = [slice(*block.indptr[i : i + 2]) for i in some]
    alone = type(block)(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([block.genes[p] for p in parts]),
        np.concatenate([block.expression[p] for p in parts]),
    )
    genes, indptr = sentences(alone, np.full(3, 20), key[some], settings)
    for new, i in zip(np.split(genes, indptr[1:-1]), some):
        np.testing.assert_array_equal(new, whole[i])


def test_dropout_keeps_order_and_is_bounded(make_cells):
    block = make_cells(300, (100, 150)).take(np.arange(300))
    settings = Augmentation(gene_dropout=0.4)
    lost = []
    for new, old in zip(run(block, settings), stored(block)):
        place = {g: i for i, g in enumerate(old.tolist())}
        order = [place[g] for g in new.tolist()]
        assert order == sorted(order)
        lost.append(1 - len(new) / len(old))
    assert min(lost) >= 0
    assert max(lost) < 0.4
    assert np.mean(lost) == pytest.approx(0.2, abs=0.03)
    assert np.std(lost) == pytest.approx(0.4 / np.sqrt(12), abs=0.03)
    # How many are left is known without the genes.
    expected = settings.genes_left(np.diff(block.indptr), keys(0, np.arange(300)))
    assert [len(x) for x in run(block, settings)] == expected.tolist()


def test_dropout_takes_any_gene(make_cells):
    block = make_cells(1, (100, 100)).take(np.zeros(2000, np.int64))
    left = np.bincount(np.concatenate(run(block, Augmentation(gene_dropout=0.5))), minlength=150)[block.genes[:100]]
    assert np.ptp(left) < 8 * np.sqrt(2000 * 0.25 * 0.75)


def test_jitter_swaps_neighbours_more_than_strangers(block):
    for row, new in enumerate(run(block, Augmentation(jitter=1e-6))):
        value = value_of(block, row)
        values = [value[g] for g in new]
        assert values == sorted(values, reverse=True)
    large = run(block, Augmentation(jitter=1.0))
    assert sum(int((a != b).sum()) for a, b in zip(large, stored(block))) > 300


def test_jitter_is_normal(make_cells):
    """Two genes at distance d swap with the probability that a normal variable of deviation √2 σ exceeds d."""
    n = 20_000
    block = type("Block", (), {"genes": np.tile(np.array([4, 9], np.int32), n), "indptr": 2 * np.arange(n + 1)})()
    block.expression = np.tile(np.array([1.5, 1.0], np.float16), n)
    genes, _ = sentences(block, np.full(n, ALL), keys(1, np.arange(n)), Augmentation(jitter=0.5))
    assert np.mean(genes[::2] == 9) == pytest.approx(0.2398, abs=0.015)  # 1 − Φ(1 / √2)


def test_tfidf(make_cells, gene_names):
    """Against scikit-learn on the dense matrix."""
    cells = make_cells(60, (5, 60))
    block = cells.take(np.arange(60))
    dense, there = np.zeros((2, 60, len(gene_names)))
    entries = np.repeat(np.arange(60), np.diff(block.indptr)), block.genes
    dense[entries], there[entries] = block.expression, 1
    idf = inverse_document_frequency(cells, len(gene_names))
    np.testing.assert_allclose(idf, TfidfTransformer(norm=None).fit(there).idf_, rtol=1e-6)
    moved = 0
    for row, (new, old) in enumerate(zip(run(block, order="tfidf", idf=idf), stored(block))):
        score = dense[row] * idf
        assert sorted(new) == sorted(old)
        assert (np.diff(score[new]) <= 1e-6).all()
        moved += int((new != old).sum())
    assert moved > 500


def test_bins(block):
    """At random within a factor of two of expression, in order between bins, however often it is drawn."""
    moved = 0
    for seed in range(3):
        for row, (new, old) in enumerate(zip(run(block, seed=seed, order="binned"), stored(block))):
            value = value_of(block, row)
            bins = [np.floor(np.float32(value[g]) / np.float32(np.log10(2))) for g in new]
            assert sorted(new) == sorted(old)
            assert bins == sorted(bins, reverse=True)
            moved += int((np.array([value[g] for g in new]) != np.array([value[g] for g in old])).sum())
    assert moved > 500


@pytest.mark.parametrize("bad", [dict(gene_dropout=1.0), dict(gene_dropout=-0.1), dict(jitter=-1.0)])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="gene_dropout must be in"):
        Augmentation(**bad)
