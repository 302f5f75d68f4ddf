import numpy as np
import pytest

from c2s_jax.data.permute import generator, keys, permuted


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16, 17, 100, 255, 256, 257, 1000, 4097])
def test_each_epoch_is_a_permutation(n):
    stream = permuted(np.arange(4 * n), n, key=3).reshape(4, n)
    np.testing.assert_array_equal(np.sort(stream, axis=1), np.tile(np.arange(n), (4, 1)))
    if n >= 16:
        assert len({tuple(epoch) for epoch in stream}) == 4
        assert not np.array_equal(stream[0], np.arange(n))


def test_key_decides():
    place = np.arange(1000)
    np.testing.assert_array_equal(permuted(place, 1000, key=1), permuted(place, 1000, key=1))
    agree = np.mean(permuted(place, 1000, key=1) == permuted(place, 1000, key=2))
    assert agree < 0.02


def test_random_access():
    n = 77
    stream = permuted(np.arange(10 * n), n, key=5)
    places = np.random.default_rng(0).integers(0, 10 * n, (6, 50))
    np.testing.assert_array_equal(permuted(places, n, key=5), stream[places])


def test_far_epochs():
    n = 1000
    start = n * 10**12
    assert sorted(permuted(np.arange(start, start + n), n, key=0).tolist()) == list(range(n))


@pytest.mark.parametrize("n", [3, 5, 13])
def test_every_item_comes_first_equally_often(n):
    epochs = 6000
    first = permuted(np.arange(epochs) * n, n, key=11)
    counts = np.bincount(first, minlength=n)
    chi2 = np.sum((counts - epochs / n) ** 2) / (epochs / n)
    assert chi2 < n + 6 * np.sqrt(2 * n)


@pytest.mark.parametrize("n", [5, 7, 20])
def test_every_two_items_come_first_equally_often(n):
    streams, pairs = 100_000, n * (n - 1)
    stream = np.arange(streams)
    first, second = (permuted(np.full(streams, place), n, keys(stream, 4)) for place in (0, 1))
    counts = np.bincount(first * n + second, minlength=n * n)[~np.eye(n, dtype=bool).ravel()]
    chi2 = np.sum((counts - streams / pairs) ** 2) / (streams / pairs)
    assert chi2 < pairs + 6 * np.sqrt(2 * pairs)


def test_nothing_to_permute():
    with pytest.raises(ValueError, match="empty set"):
        permuted(np.arange(1), 0, key=0)


def test_generator_depends_on_its_key_alone():
    parts = [(), (0, 1), (1, 0), (1,), (1, 0, 1), (1, 0, 2), (2, 5, 1)]
    draws = {key: tuple(generator(*key).integers(1 << 40, size=4).tolist()) for key in parts}
    assert draws[(1,)] == draws[(1, 0)]
    assert len(set(draws.values())) == len(parts) - 1
    assert tuple(generator(2, 5, 1).integers(1 << 40, size=4).tolist()) == draws[(2, 5, 1)]
    with pytest.raises(ValueError, match="at most three"):
        generator(1, 2, 3, 4)
