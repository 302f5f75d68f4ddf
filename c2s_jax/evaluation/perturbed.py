"""Perturbed and control cells of a corpus, and what training cells say of a perturbation without a model."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.data import CellSource
from c2s_jax.data.corpus_format import COMBINED
from c2s_jax.data.ragged import evenly
from c2s_jax.evaluation.context import Context
from c2s_jax.evaluation.profiles import training_profiles
from c2s_jax.evaluation.sides import Cells, Side

MOST_CELLS = 1_000  # of training, or of control cells, in the place of one condition's
Conditions = Mapping[str, tuple[str, str]]
"""Type and perturbation by the name of a condition."""


def perturbed(context: Context, cells: CellSource, control: str = "") -> NDArray[np.bool_]:
    """Cells that are perturbed: they have a perturbation, and it is not their data set's control."""
    values = cells.fields("perturbation")
    return (values != "") & (values != control_names(context, control)[cells.dataset_ids])


def control_names(context: Context, control: str = "") -> NDArray[np.str_]:
    """The value of ``perturbation`` that means untreated, of each data set; empty where none does."""
    return np.array([control or d.get("control", "") for d in context.corpus.datasets], dtype=np.str_)


def untreated(context: Context, cells: CellSource, control: str = "") -> NDArray[np.bool_]:
    """Control cells: they have their data set's control as perturbation.

    Cells without a perturbation are neither perturbed nor control: nobody said what was done to them.
    """
    values = cells.fields("perturbation")
    return (values != "") & (values == control_names(context, control)[cells.dataset_ids])


def control_side(context: Context, split: str, conditions: Conditions, control: str = "") -> Side | None:
    """Control cells of each condition's type, of the split or, where it has none of the type, of training.

    Conditions of a type without control cells are left out; None where all are.
    """
    sources = {name: context.corpus.cells(name) for name in (split, "train")}
    pools = [(name, s.fields("cell_type"), untreated(context, s, control)) for name, s in sources.items()]
    parts: list[Cells] = []
    of_type: dict[str, NDArray[np.int64]] = {}
    for kind in sorted({kind for kind, _ in conditions.values()}):
        for name, types, there in pools:
            if len(found := _some(np.flatnonzero(there & (types == kind)))):
                of_type[kind] = np.arange(len(found)) + sum(map(len, parts))
                parts.append(Cells.stored(context, name, found))
                break
    if not parts:
        return None
    rows = {name: of_type[kind] for name, (kind, _) in conditions.items() if kind in of_type}
    return Side(Cells.together(parts), rows)


def training_sides(context: Context, conditions: Conditions, space: NDArray, control: str = "") -> dict[str, Side]:
    """Training cells in the place of a condition's: ``real_vs_real`` and three baselines, those that there are.

    ``space`` holds the training cells [N, d] as points among which the nearest perturbed ones are looked up.
    """
    train = context.corpus.cells("train")
    types, names = train.fields("cell_type"), train.fields("perturbation")
    treated, there = perturbed(context, train, control), untreated(context, train, control)
    pick: dict[str, Callable[[str, str], NDArray]] = {
        "real_vs_real": lambda t, p: treated & (types == t) & (names == p),
        "control_cells": lambda t, p: there & (types == t),
        "perturbed_cells": lambda t, p: treated & (types == t),
    }
    chosen = {
        side: {name: _some(np.flatnonzero(rule(*condition))) for name, condition in conditions.items()}
        for side, rule in pick.items()
    }
    among = np.flatnonzero(treated)
    chosen["nearest_training_cell"] = {
        name: _nearest(space, among, rows) for name, rows in chosen["control_cells"].items()
    }
    used = np.unique(np.concatenate([rows for side in chosen.values() for rows in side.values()]))
    cells = Cells.stored(context, "train", used)
    return {
        side: Side(cells, {name: np.searchsorted(used, rows) for name, rows in by.items()})
        for side, by in chosen.items()
        if any(len(rows) for rows in by.values())
    }


def moved_controls(context: Context, conditions: Conditions, controls: Side, control: str = "") -> dict[str, Side]:
    """Control cells of each condition's type, moved by what training says of its perturbation.

    ``mean_shift``: by the mean change under it; one that training lacks moves by the mean over all. ``additive``: where
    it is a combination, by the sum of the mean changes under its parts; conditions whose parts training has not all
    alone are left out. Nothing where training has no control cells, or no perturbed ones.
    """
    train = context.corpus.cells("train")
    treated, there = perturbed(context, train, control), untreated(context, train, control)
    if not treated.any() or not there.any():
        return {}
    shift = training_profiles(train, treated, there, len(context.corpus.genes)).shift
    names = {condition: conditions[condition][1] for condition in controls.rows}
    parts = {condition: np.array(name.split(COMBINED)) for condition, name in names.items()}
    moves = {
        "mean_shift": dict(zip(names, shift.of(np.array(list(names.values()))))),
        "additive": {c: shift.of(p).sum(0) for c, p in parts.items() if len(p) > 1 and shift.knows(p).all()},
    }
    return {
        side: Side(controls.cells, {condition: controls.rows[condition] for condition in by}, by)
        for side, by in moves.items()
        if by
    }


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[evenly(len(rows), MOST_CELLS)] if len(rows) else rows


def _nearest(space: NDArray, treated: NDArray[np.int64], control: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each control cell the nearest perturbed training cell, of any type and perturbation."""
    if not len(treated) or not len(control):
        return np.empty(0, np.int64)
    return treated[metrics.knn_predict(space[treated], np.arange(len(treated)), space[control], k=1).astype(np.int64)]
