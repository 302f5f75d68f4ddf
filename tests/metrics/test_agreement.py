"""Gene overlap, k-NN accuracy, classification scores and R² against independent counts."""

from typing import Any

import numpy as np
import pytest
import scanpy as sc
from scipy import sparse
from sklearn.metrics import f1_score, r2_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from c2s_jax.metrics import (
    accuracy,
    auroc,
    baselines,
    confusion,
    gene_jaccard,
    gene_overlap,
    knn_accuracy,
    knn_predict,
    macro_f1,
    pad_gene_lists,
    positional_agreement,
    reconstruction_r2,
)


@pytest.fixture(scope="module")
def pbmc() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    adata = sc.datasets.pbmc68k_reduced()
    return adata.raw.X.toarray(), adata.obs["bulk_labels"].astype(str).to_numpy()


def random_lists(seed: int, n: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 30, size).tolist() for size in rng.integers(1, 40, n)]


def test_overlap_counts_unique_genes() -> None:
    generated, target = [[], *random_lists(0)], [[3], *random_lists(1)]
    pairs = [(set(g), set(t)) for g, t in zip(generated, target, strict=True)]
    padded = pad_gene_lists(generated), pad_gene_lists(target)
    np.testing.assert_allclose(gene_overlap(*padded), [len(g & t) / len(t) for g, t in pairs], rtol=1e-6)
    np.testing.assert_allclose(gene_jaccard(*padded), [len(g & t) / len(g | t) for g, t in pairs], rtol=1e-6)
    np.testing.assert_array_equal(gene_overlap(generated, target), gene_overlap(*padded))


def test_overlap_of_names() -> None:
    assert gene_overlap("CD3D CD3E CD3E LYZ".split(), "LYZ CD3D MS4A1 NKG7".split()) == 0.5
    assert gene_jaccard(["CD3D", "LYZ"], ["LYZ", "CD3D"]) == 1.0
    np.testing.assert_allclose(gene_overlap([["A", "B"], ["C"]], [["B"], ["A", "B"]]), [1.0, 0.0])
    assert gene_overlap([], ["A"]) == 0.0


def test_positions_count_where_both_name_one_gene() -> None:
    generated, target = [[], *random_lists(0)], [[3], *random_lists(1)]
    want = [sum(a == b for a, b in zip(g, t)) / len(t) for g, t in zip(generated, target, strict=True)]
    np.testing.assert_allclose(positional_agreement(generated, target), want, rtol=1e-6)
    assert positional_agreement("A B C".split(), "A C C D".split()) == 0.5


@pytest.mark.parametrize(
    ("generated", "target", "message"),
    [
        ([["A"]], [[]], "target 0 has no gene"),
        ([["A"]], [["A"], ["B"]], "1 gene lists and target 2"),
        ("CD3D LYZ", ["LYZ"], "split the sentence"),
        (np.array([[-2, 3]]), np.array([[3]]), "-1 for padding"),
    ],
)
def test_overlap_refuses(generated: Any, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gene_overlap(generated, target)


def test_knn_agrees_with_scikit_learn(pbmc: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    cells, labels = pbmc
    oracle = KNeighborsClassifier(5, algorithm="brute").fit(cells[:500] + 50, labels[:500])
    want = oracle.predict(cells[500:] + 50)
    np.testing.assert_array_equal(knn_predict(cells[:500] + 50, labels[:500], cells[500:] + 50, rows=64), want)
    score = knn_accuracy(cells[:500], labels[:500], cells[500:], labels[500:])
    assert score == np.mean(want == labels[500:])
    assert 0.5 < score < 0.95


def test_knn_refuses_more_neighbours_than_cells() -> None:
    with pytest.raises(ValueError, match="between 1 and the 3 real cells"):
        knn_predict(np.eye(3), list("abc"), np.eye(3), k=4)


def test_classification_scores() -> None:
    true = ["B", "B", "T", "T", "T", "NK"]
    predicted = ["B", "T", "T", "T", "unparsed", "NK"]
    assert accuracy(true, predicted) == pytest.approx(4 / 6)
    # F1: B 2/3, T 2/3, NK 1; "unparsed" is no class of its own
    assert macro_f1(true, predicted) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert macro_f1(true, predicted) > f1_score(true, predicted, average="macro")
    counts, labels = confusion(true, predicted, ["T", "B", "NK", "unparsed"])
    assert labels == ["T", "B", "NK", "unparsed"]
    assert counts.tolist() == [[2, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="unparsed"):
        confusion(true, predicted, ["T", "B", "NK"])
    with pytest.raises(ValueError, match="each of 6 cells"):
        accuracy(true, predicted[:-1])


def test_auroc_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice(["B", "NK", "T"], 60)
    scores = rng.random((60, 3)) + 0.7 * (true[:, None] == np.array(["NK", "T", "B"]))
    probabilities = scores / scores.sum(1, keepdims=True)
    want = roc_auc_score(true, probabilities[:, [2, 0, 1]], multi_class="ovr", labels=["B", "NK", "T"])
    assert auroc(true, probabilities, ["NK", "T", "B"]) == pytest.approx(want)
    assert auroc(true, np.eye(3)[np.unique(true, return_inverse=True)[1]], ["B", "NK", "T"]) == 1.0
    with pytest.raises(ValueError, match="every cell is"):
        auroc(["B", "B"], scores[:2], ["NK", "T", "B"])
    with pytest.raises(ValueError, match="labels lacks"):
        auroc(["B", "T"], scores[:2], ["NK", "T", "A"])


def test_baselines_on_real_cells(pbmc: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    cells, labels = pbmc
    train, test = train_test_split(np.arange(700), test_size=0.2, stratify=labels, random_state=0)
    scores = baselines(sparse.csr_matrix(cells[train]), labels[train], cells[test], labels[test])
    assert scores["majority"].accuracy == np.mean(labels[test] == "Dendritic")
    assert set(scores["majority"].predicted) == {"Dendritic"}
    assert 0.8 < scores["logistic_regression"].accuracy < 0.92
    shuffled = np.random.default_rng(0).permutation(labels[train])
    assert baselines(cells[train], shuffled, cells[test], labels[test])["logistic_regression"].accuracy < 0.45


def test_r2() -> None:
    rng = np.random.default_rng(0)
    real = rng.poisson(1.0, (40, 30)).astype(np.float32)
    guess = real + rng.normal(0, 0.4, real.shape).astype(np.float32) * (real > 0)
    assert reconstruction_r2(real, guess) == pytest.approx(r2_score(real.ravel(), guess.ravel()), rel=1e-5)
    mask = rng.random(real.shape) < 0.3
    assert reconstruction_r2(real, guess, mask) == pytest.approx(r2_score(real[mask], guess[mask]), rel=1e-5)
    both = sparse.csr_matrix(real), sparse.csr_matrix(guess)
    assert reconstruction_r2(*both) == pytest.approx(r2_score(real.ravel(), guess.ravel()), rel=1e-5)
    assert reconstruction_r2(real, real) == 1.0
    with pytest.raises(ValueError, match="constant"):
        reconstruction_r2(np.ones((2, 2)), real[:2, :2])
    with pytest.raises(ValueError, match="not the same cells"):
        reconstruction_r2(real, guess[:-1])
