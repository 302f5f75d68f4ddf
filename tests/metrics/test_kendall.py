"""Kendall's tau-b against SciPy, on the host and on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kendalltau

from c2s_jax.metrics import kendall_tau_b, kendall_tau_b_on_device, position_scores

GENES = 61
Pair = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def scores(kind: str, n: int = 7, genes: int = GENES) -> Pair:
    rng = np.random.default_rng(len(kind))
    x = rng.normal(size=(n, genes))
    y = rng.normal(size=(n, genes)) + x
    order = np.argsort(rng.random((n, genes)), axis=1)
    return {
        "no ties": lambda: (x, y),
        "counts": lambda: (rng.poisson(1, x.shape), rng.poisson(2, x.shape).astype(np.float32) + (x > 0)),
        "positions, absent last": lambda: (-np.minimum(order, genes // 3), np.float32(y)),
        "two values": lambda: (x > 0, (y > 0).astype(np.int8)),
        "zeros of both signs": lambda: (np.where(x > 0, 0.0, -0.0) + (np.abs(x) > 1), y.round()),
        # Codes that agree in all bits that a word has room for, in the order against the places.
        "far outlier": lambda: (np.where(order == 0, 2**62, order), np.where(order == 1, -(2**62), -order)),
        "unsigned of 64 bits": lambda: (rng.integers(0, 2**64, x.shape, np.uint64), np.float16(y)),
    }[kind]()


KINDS = (
    "no ties",
    "counts",
    "positions, absent last",
    "two values",
    "zeros of both signs",
    "far outlier",
    "unsigned of 64 bits",
)


def scipy_taus(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> list[float]:
    return [kendalltau(a, b).statistic for a, b in zip(x, y)]


@pytest.mark.parametrize("genes", [2, GENES, 1100, 2100])
@pytest.mark.parametrize("kind", KINDS)
def test_host_agrees_with_scipy(kind: str, genes: int) -> None:
    x, y = scores(kind, genes=genes)
    want = np.nan_to_num(scipy_taus(x, y))
    np.testing.assert_allclose(kendall_tau_b(x, y), want, atol=1e-12)
    assert kendall_tau_b(x[0], y[0]) == pytest.approx(want[0], abs=1e-12)


@pytest.mark.parametrize("kind", ["no ties", "counts", "positions, absent last", "two values", "zeros of both signs"])
def test_device_agrees_with_scipy(kind: str) -> None:
    x, y = (np.float32(a) for a in scores(kind))
    np.testing.assert_allclose(kendall_tau_b_on_device(x, y), scipy_taus(x, y), atol=1e-6)


def test_rows_beyond_one_chunk_keep_their_order() -> None:
    x, y = scores("counts", n=300, genes=20)
    np.testing.assert_allclose(kendall_tau_b(x, y), np.nan_to_num(scipy_taus(x, y)), atol=1e-12)


@pytest.mark.parametrize("tau", [kendall_tau_b, kendall_tau_b_on_device])
def test_undefined_has_a_value(tau: Any) -> None:
    x, y = (np.float32(a[:3]) for a in scores("no ties"))
    x[0], y[1, 5] = 2.0, np.nan
    want = scipy_taus(x[2:], y[2:])[0]
    np.testing.assert_allclose(tau(x, y), [0, 0, want], atol=1e-6)
    np.testing.assert_allclose(tau(x, y, undefined=-1.0), [-1, -1, want], atol=1e-6)


def test_reward_of_gene_lists_inside_jit_and_vmap() -> None:
    """Groups of answers against one cell each, as a policy is rewarded, against lists in plain Python."""
    rng = np.random.default_rng(0)
    genes = rng.permutation(200)[:GENES]
    answers = np.array([[rng.choice(200, 90) for _ in range(3)] for _ in range(2)])
    answers[0, 0, 40:] = -1
    expression = rng.poisson(1.0, (2, GENES)).astype(np.float32)

    @jax.jit
    def reward(ids: Any, cells: Any) -> Any:
        return jax.vmap(lambda a, c: kendall_tau_b_on_device(position_scores(a, genes), c))(ids, cells)

    got = reward(answers, expression)
    for i, cell in enumerate(expression):
        for j, ids in enumerate(answers[i].tolist()):
            by_hand = [-ids.index(g) if g in ids else -len(ids) for g in genes.tolist()]
            np.testing.assert_array_equal(position_scores(ids, genes), by_hand)
            assert got[i, j] == pytest.approx(kendalltau(by_hand, cell).statistic, abs=1e-6)


def test_an_answer_without_any_of_the_genes_is_undefined() -> None:
    none = position_scores(jnp.array([7, 8, -1]), np.arange(5))
    assert kendall_tau_b(np.asarray(none), np.arange(5)) == 0.0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(3), np.zeros(4), "of the same genes"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "of the same genes"),
        (np.array(["a"]), np.array(["b"]), "real numbers"),
        (np.zeros(70_000), np.zeros(70_000), "limit is 65535"),
    ],
)
def test_bad_scores_say_what_is_wrong(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kendall_tau_b(x, y)
