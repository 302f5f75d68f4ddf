"""Rows of different lengths in batches of few shapes."""

import numpy as np
import pytest

from c2s_jax.data.by_length import bucket, by_length, padded


def test_lengths_to_pad_to() -> None:
    assert [bucket(n) for n in (1, 32, 33, 64, 65, 128, 129, 215, 256, 257, 2000)] == [
        *(32, 32, 64, 64, 96, 128, 160, 224, 256, 320, 2048)
    ]
    lengths = np.arange(33, 5000)
    found = np.array([bucket(int(n)) for n in lengths])
    assert (found >= lengths).all()
    assert ((found - lengths)[lengths > 128] / found[lengths > 128] < 0.2).all()
    assert len(set(found[lengths <= 512])) <= 16


@pytest.mark.parametrize("tokens", [None, 600])
def test_every_row_once_in_a_batch_that_holds_it(tokens: int | None) -> None:
    lengths = np.random.default_rng(0).integers(1, 513, 1000)
    seen: list[int] = []
    rows_of: dict[int, set[int]] = {}
    for rows, (n, width) in by_length(lengths, 32, tokens=tokens, longest=500 if tokens is None else None):
        assert 0 < len(rows) <= n <= 32
        assert width == 500 or (lengths[rows] <= width).all()
        if tokens:
            assert n == 1 or n * width <= tokens
        seen += rows.tolist()
        rows_of.setdefault(width, set()).add(n)
    assert sorted(seen) == list(range(1000))
    assert (np.diff(lengths[seen]) >= 0).all()
    assert all(len(n) == 1 for n in rows_of.values()), "a width has one shape"


def test_parts_share_a_batch() -> None:
    shapes = {shape for _, shape in by_length([100] * 50, 16, tokens=256, parts=4)}
    assert shapes == {(8, 128)}
    assert {shape for _, shape in by_length([1000] * 5, 16, tokens=256, parts=4)} == {(4, 1024)}
    assert not list(by_length([], 16))


def test_padding() -> None:
    tokens, lengths = padded([np.array([5, 6, 7]), np.array([8])], (3, 4), 9)
    np.testing.assert_array_equal(tokens, [[5, 6, 7, 9], [8, 9, 9, 9], [9, 9, 9, 9]])
    np.testing.assert_array_equal(lengths, [3, 1, 1])
