"""Scores of predicted labels, and the baselines that stand beside them."""

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import metrics as sklearn_metrics
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from c2s_jax.metrics._checks import label_array


@dataclass(frozen=True)
class Baseline:
    """A baseline's scores on the test cells and its predictions, str [C]."""

    accuracy: float
    macro_f1: float
    predicted: np.ndarray[Any, Any]


def accuracy(true: ArrayLike, predicted: ArrayLike) -> float:
    """Share of cells whose predicted label is the true one."""
    truth, guess = _label_pair(true, predicted)
    return float(np.mean(truth == guess))


def macro_f1(true: ArrayLike, predicted: ArrayLike) -> float:
    """Unweighted mean of F1 over the labels that occur in `true`.

    A label predicted but never true (an answer that could not be parsed, say) costs recall where it replaced
    the right one; it is not a class of its own in the mean.
    """
    truth, guess = _label_pair(true, predicted)
    return float(sklearn_metrics.f1_score(truth, guess, labels=np.unique(truth), average="macro", zero_division=0))


def label_scores(true: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """`accuracy` and `macro_f1` by name."""
    return {"accuracy": accuracy(true, predicted), "macro_f1": macro_f1(true, predicted)}


def confusion(
    true: ArrayLike, predicted: ArrayLike, labels: ArrayLike | None = None
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Confusion counts int64 [L, L] (rows true, columns predicted) and the labels they are in the order of.

    `labels` fixes order and extent (it must hold every label met); by default all labels met, sorted.
    """
    truth, guess = _label_pair(true, predicted)
    met = np.union1d(truth, guess)
    order = met if labels is None else np.asarray(labels).astype(str)
    missing = np.setdiff1d(met, order)
    if missing.size:
        raise ValueError(f"labels lacks {missing.tolist()}, which occur among the true or predicted labels")
    return sklearn_metrics.confusion_matrix(truth, guess, labels=order), order.tolist()


def auroc(true: ArrayLike, scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve, unweighted mean over the labels that occur in `true`, each against the rest.

    Parameters
    ----------
    true
        Labels [C].
    scores
        [C, L], the larger the more likely (probabilities or logits).
    labels
        [L], what the columns of `scores` stand for.

    Raises
    ------
    ValueError
        When all cells have one label, or a label has no column.
    """
    order, values = np.asarray(labels).astype(str), np.asarray(scores, np.float64)
    truth = label_array(true, len(values), "true")
    if values.shape != (len(truth), len(order)):
        raise ValueError(f"scores must be [{len(truth)}, {len(order)}] (cells, labels), got shape {values.shape}")
    present = np.unique(truth)
    if missing := np.setdiff1d(present, order).tolist():
        raise ValueError(f"labels lacks {missing}, which occur among the true labels")
    if len(present) < 2:
        raise ValueError(f"AUROC has no value: every cell is {present.tolist()}")
    areas = [sklearn_metrics.roc_auc_score(truth == x, values[:, order.tolist().index(x)]) for x in present.tolist()]
    return float(np.mean(areas))


def baselines(
    train_X: Any, train_y: ArrayLike, test_X: Any, test_y: ArrayLike, *, C: float = 1.0, max_iter: int = 2000
) -> dict[str, Baseline]:
    """Majority class and logistic regression, fitted on the training cells and scored on the test cells.

    Parameters
    ----------
    train_X, test_X
        Log expression [C, G], dense or CSR.
    train_y, test_y
        Labels [C].
    C, max_iter
        Inverse strength of the L2 penalty, and the solver's limit; a fit that stops at the limit is an error.

    Returns
    -------
    dict
        ``{"majority": Baseline, "logistic_regression": Baseline}``.
    """
    train_labels = label_array(train_y, train_X.shape[0], "train_y")
    test_labels = label_array(test_y, test_X.shape[0], "test_y")
    if train_X.shape[1] != test_X.shape[1]:
        raise ValueError(f"train_X has {train_X.shape[1]} genes and test_X {test_X.shape[1]}; use the same genes")
    counts = Counter(train_labels.tolist())
    majority = min(counts, key=lambda label: (-counts[label], label))
    predictions = {"majority": np.full(len(test_labels), majority)}
    if len(counts) > 1:
        model = LogisticRegression(C=C, max_iter=max_iter)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            model.fit(train_X, train_labels)
        predictions["logistic_regression"] = model.predict(test_X)
    else:
        predictions["logistic_regression"] = predictions["majority"]
    return {name: Baseline(**label_scores(test_labels, guess), predicted=guess) for name, guess in predictions.items()}


def _label_pair(true: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    truth = np.asarray(true).astype(str)
    if truth.ndim != 1 or truth.size == 0:
        raise ValueError(f"true labels must be a non-empty list of labels, got shape {truth.shape}")
    return truth, label_array(predicted, truth.size, "predicted")
