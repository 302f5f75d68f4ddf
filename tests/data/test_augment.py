import numpy as np
import pytest

from c2s_jax.data import Augmentation
from c2s_jax.data.augment import augment


@pytest.fixture
def block(make_cells):
    cells = make_cells(30, (1, 60))
    return cells.take(np.arange(30))


def run(block, settings, seed=0):
    genes, indptr = augment(block.genes, block.expression, block.indptr, settings, np.random.default_rng(seed))
    return np.split(genes, indptr[1:-1])


def stored(block):
    return np.split(block.genes, block.indptr[1:-1])


def value_of(block, row):
    part = slice(block.indptr[row], block.indptr[row + 1])
    return dict(zip(block.genes[part].tolist(), block.expression[part].tolist()))


def test_off_is_the_stored_order(block):
    assert not Augmentation().active
    for new, old in zip(run(block, Augmentation()), stored(block)):
        np.testing.assert_array_equal(new, old)


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


def test_dropout_keeps_order_and_is_bounded(make_cells):
    cells = make_cells(300, (100, 150))
    block = cells.take(np.arange(300))
    lost = []
    for new, old in zip(run(block, Augmentation(gene_dropout=0.4)), stored(block)):
        place = {g: i for i, g in enumerate(old.tolist())}
        order = [place[g] for g in new.tolist()]
        assert order == sorted(order)
        lost.append(1 - len(new) / len(old))
    # Each cell's own share is uniform below 0.4; a binomial's scatter around it.
    assert max(lost) < 0.4 + 5 * np.sqrt(0.4 * 0.6 / 100)
    assert np.mean(lost) == pytest.approx(0.2, abs=0.03)
    assert np.std(lost) == pytest.approx(0.4 / np.sqrt(12), abs=0.03)


def test_jitter_swaps_neighbours_more_than_strangers(block):
    small = run(block, Augmentation(jitter=1e-6))
    for row, new in enumerate(small):
        value = value_of(block, row)
        values = [value[g] for g in new]
        assert values == sorted(values, reverse=True)
    large = run(block, Augmentation(jitter=1.0))
    assert sum(int((a != b).sum()) for a, b in zip(large, stored(block))) > 300


@pytest.mark.parametrize("bad", [dict(gene_dropout=1.0), dict(gene_dropout=-0.1), dict(jitter=-1.0)])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="gene_dropout must be in"):
        Augmentation(**bad)
