"""Changes of expression against SciPy's tests and correlations."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from c2s_jax.metrics import de_genes, de_overlap, delta_correlation

Cells = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def cells() -> Cells:
    """Perturbed, predicted and control cells of 60 genes; the first ten genes change, by falling amounts."""
    rng = np.random.default_rng(0)
    effect = np.concatenate([np.linspace(3, 1, 10), np.zeros(50)])
    effect[1:10:2] *= -1
    control = rng.normal(size=(80, 60)) + 5
    return rng.normal(size=(50, 60)) + 5 + effect, rng.normal(size=(40, 60)) + 5 + 0.5 * effect, control


def test_deltas(cells: Cells) -> None:
    real, generated, control = cells
    got = delta_correlation(real, generated, control)
    deltas = real.mean(0) - control.mean(0), generated.mean(0) - control.mean(0)
    assert got.pearson == pytest.approx(np.corrcoef(*deltas)[0, 1], abs=1e-6)
    assert got.spearman == pytest.approx(np.corrcoef(*map(stats.rankdata, deltas))[0, 1], abs=1e-6)
    assert got.n_genes == 60
    # Levels correlate between any two sets of cells; changes do not.
    assert abs(delta_correlation(real[:25], control[:40], control).pearson) < 0.5
    assert delta_correlation(real, control, control).pearson == 0.0


@pytest.mark.parametrize(("method", "score"), [("t-test", stats.ttest_ind), ("wilcoxon", stats.ranksums)])
def test_genes_are_in_the_order_of_the_test(cells: Cells, method: Any, score: Any) -> None:
    real, _, control = cells
    extra = {"equal_var": False} if method == "t-test" else {}
    want = np.argsort(-np.abs([score(real[:, g], control[:, g], **extra).statistic for g in range(60)]))
    got = de_genes(real, control, method=method)
    np.testing.assert_array_equal(got[:8], want[:8])
    assert set(got[:10].tolist()) == set(range(10))


def test_de_overlap(cells: Cells) -> None:
    real, generated, control = cells
    assert de_overlap(real, generated, control, k=10) >= 0.8
    assert de_overlap(real, control[:40], control, k=10) <= 0.4
    assert de_overlap(real, real, control, k=10) == 1.0
    assert de_overlap(real, generated, control, k=60) == 1.0


def test_bad_cells_say_what_is_wrong(cells: Cells) -> None:
    real, generated, control = cells
    with pytest.raises(ValueError, match="same genes"):
        delta_correlation(real, generated[:, :5], control)
    with pytest.raises(ValueError, match="at least 2 treated"):
        de_genes(real[:1], control)
    with pytest.raises(ValueError, match="between 1 and the 60"):
        de_overlap(real, generated, control, k=61)
