"""Cells generated under a perturbation against real ones of the same type and perturbation, condition by condition."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from c2s_jax import metrics
from c2s_jax.data import CellSource, reconstruct
from c2s_jax.evaluation import exports
from c2s_jax.evaluation.context import Context, Sentences, dense_expression, sentences_of
from c2s_jax.evaluation.generation import Generated, generate_cells
from c2s_jax.generation import Sampling

TASK = "perturbed_cell_generation"
MIN_CELLS = 2
Cells = tuple[NDArray, NDArray]
"""Conditions, str [C], and cells in the space they are compared in, float [C, d]."""


def perturbation_metrics(
    context: Context,
    split: str,
    *,
    sampling: Sampling,
    components: int,
    max_cells: int | None = None,
    seed: int = 0,
    control: str = "",
    export: Sequence[str] = (),
    folder: str = "",
) -> dict[str, Any] | None:
    """scFID, MMD (median heuristic) and W2 by condition (type × perturbation), unweighted means over conditions.

    In principal components of training expression. Beside the model: control cells of the type, all perturbed cells of
    the type whatever the perturbation, and the training cells nearest to the condition's control cells. Scramble: the
    same prompts with perturbation names permuted among them. References: other real cells of the condition, and real
    cells through their own sentences. None where no perturbed cells are held out.

    Parameters
    ----------
    control
        The value of the field ``perturbation`` that means untreated; by default what the corpus says of each data set.
    export, folder
        Formats in which real and generated cells are written too, and where to, see ``exports.write_perturbed``.
    """
    cells, train = context.corpus.cells(split), context.corpus.cells("train")
    treated = np.flatnonzero((cells.fields("cell_type") != "") & perturbed(context, cells, control))[:max_cells]
    if not len(treated):
        return None
    names = cells.fields("perturbation")[treated]
    rng = np.random.Generator(np.random.Philox(key=seed))
    swapped = rng.permutation(names)

    def generate(perturbations: NDArray) -> Generated:
        return generate_cells(
            context,
            split,
            task=TASK,
            rows=treated,
            values={"perturbation": perturbations},
            sampling=sampling,
            seed=seed,
        )

    n_genes = len(context.corpus.genes)
    measured = dense_expression(train, np.arange(len(train)), n_genes)
    pca = PCA(min(components, *measured.shape), random_state=0).fit(measured)
    conditions = _conditions(cells.fields("cell_type")[treated], names)
    expression = dense_expression(cells, treated, n_genes)
    real = conditions, pca.transform(expression)
    datasets = cells.dataset_ids[treated]

    def of(sentences: Sentences) -> Cells:
        return conditions, pca.transform(reconstruct(context.corpus, sentences.lists(), datasets))

    made = generate(names)
    sides = {
        "generated": of(made.sentences),
        "shuffled_perturbations": of(generate(swapped).sentences),
        "real_through_its_sentence": of(sentences_of(cells, treated, context.max_genes)),
    }
    sides |= _references(train, perturbed(context, train, control), pca.transform(measured), set(conditions.tolist()))
    found = {name: _distances(real, side, seed) for name, side in sides.items()}
    if export:
        untreated = _controls(context, split, control)
        exports.write_perturbed(
            folder,
            export,
            real=expression,
            generated=reconstruct(context.corpus, made.sentences.lists(), datasets),
            control=dense_expression(*untreated, n_genes),
            obs={"perturbation": names, "cell_type": cells.fields("cell_type")[treated]},
            control_obs={"cell_type": untreated[0].fields("cell_type")[untreated[1]]},
            genes=context.corpus.genes.names,
            space=pca,
        )
    return found.pop("generated") | {
        "n": len(treated),
        "scrambles": {"shuffled_perturbations": found.pop("shuffled_perturbations")},
        "references": {k: found.pop(k) for k in ("real_vs_real", "real_through_its_sentence") if k in found},
        "baselines": found,
    }


def perturbed(context: Context, cells: CellSource, control: str = "") -> NDArray[np.bool_]:
    """Cells that are perturbed: they have a perturbation, and it is not their data set's control."""
    own = np.array([control or d.get("control", "") for d in context.corpus.datasets], dtype=np.str_)
    values = cells.fields("perturbation")
    return (values != "") & (values != own[cells.dataset_ids])


def _controls(context: Context, split: str, control: str) -> tuple[CellSource, NDArray[np.int64]]:
    """Untreated cells of a split or, where it has none, of training."""
    for name in (split, "train"):
        cells = context.corpus.cells(name)
        rows = np.flatnonzero((cells.fields("perturbation") != "") & ~perturbed(context, cells, control))
        if len(rows):
            return cells, rows
    raise ValueError("evaluation.export: the corpus has no control cells; name a data set's control when building it")


def _conditions(types: NDArray, perturbations: NDArray) -> NDArray:
    return np.array([f"{t} · {p}" for t, p in zip(types, perturbations)], dtype=np.str_)


def _references(train: CellSource, treated: NDArray, space: NDArray, conditions: set[str]) -> dict[str, Cells]:
    """Training cells in the place of generated ones, by condition."""
    types, names = train.fields("cell_type"), train.fields("perturbation")
    pick: dict[str, Callable[[str, str], NDArray]] = {
        "real_vs_real": lambda t, p: np.flatnonzero(treated & (types == t) & (names == p)),
        "control_cells": lambda t, p: np.flatnonzero(~treated & (types == t)),
        "perturbed_cells": lambda t, p: np.flatnonzero(treated & (types == t)),
        "nearest_training_cell": lambda t, p: _nearest(space, treated, ~treated & (types == t)),
    }
    out: dict[str, Cells] = {}
    for name, choose in pick.items():
        labels, rows = [], []
        for condition in sorted(conditions):
            found = choose(*condition.split(" · ", 1))
            labels += [condition] * len(found)
            rows.append(found)
        chosen = np.concatenate(rows)
        if len(chosen):
            out[name] = np.array(labels), space[chosen]
    return out


def _nearest(space: NDArray, treated: NDArray, control: NDArray) -> NDArray:
    """For each control cell the nearest perturbed training cell, of any type and perturbation."""
    there, here = np.flatnonzero(treated), np.flatnonzero(control)
    if not len(there) or not len(here):
        return np.empty(0, np.int64)
    return there[metrics.knn_predict(space[there], np.arange(len(there)), space[here], k=1).astype(np.int64)]


def _distances(real: Cells, side: Cells, seed: int) -> dict[str, Any]:
    """Means over conditions, and each condition's values, of those with two cells or more on both sides."""
    by: dict[str, dict[str, float]] = {"scfid": {}, "mmd": {}, "wasserstein": {}}
    n: dict[str, list[int]] = {}
    for condition in np.unique(real[0]).tolist():
        left, right = (cells[labels == condition] for labels, cells in (real, side))
        if min(len(left), len(right)) < MIN_CELLS:
            continue
        n[condition] = [len(left), len(right)]
        by["scfid"][condition] = metrics.scfid(left, right)
        by["mmd"][condition] = metrics.mmd(left, right, gammas="median")
        by["wasserstein"][condition] = metrics.wasserstein(left, right)
    means: dict[str, Any] = {key: float(np.mean(list(v.values()))) if v else None for key, v in by.items()}
    return means | {f"{key}_by_condition": v for key, v in by.items()} | {"condition_n": n}
