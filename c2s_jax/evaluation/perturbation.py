"""Cells generated under a perturbation against real ones of the same type and perturbation, condition by condition."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data import CellSource
from c2s_jax.evaluation import exports, spaces
from c2s_jax.evaluation.changes import change_metrics
from c2s_jax.evaluation.context import Context, dense_expression, principal, some_of
from c2s_jax.evaluation.controls import elsewhere
from c2s_jax.evaluation.distances import distance_metrics
from c2s_jax.evaluation.generation import generate_cells
from c2s_jax.evaluation.perturbed import (
    control_names,
    control_side,
    moved_controls,
    perturbed,
    training_sides,
    untreated,
)
from c2s_jax.evaluation.sides import Cells, Side, named
from c2s_jax.generation import Sampling

TASK = "perturbed_cell_generation"


def perturbation_metrics(
    context: Context,
    split: str,
    *,
    sampling: Sampling,
    components: int,
    more_spaces: Sequence[str] = (),
    max_cells: int | None = None,
    seed: int = 0,
    control: str = "",
    export: Sequence[str] = (),
    folder: str = "",
) -> dict[str, Any] | None:
    """scFID, MMD (median heuristic) and W2 by condition (type × perturbation), unweighted means over conditions.

    Every mean of every side has its 95 % interval (``<metric>_ci``); those that stand beside the model that of how far
    the model is above them, too (``<metric>_gain_ci``), see ``resampled.told``.

    In principal components of training expression; the same under ``spaces`` in ``more_spaces`` and on gene sets of the
    corpus, those that perturbations move most in training. Under ``change``: agreement of the change from the type's
    control cells, see ``change_metrics``.

    Beside the model: control cells of the type, the same moved by the mean change under the perturbation in training
    (``mean_shift``) and, for combinations, by the sum of those under its parts (``additive``), all perturbed cells of
    the type whatever the perturbation, and the training cells nearest to the condition's control cells. Scramble: the
    same prompts with the name of another held-out perturbation or, where there is a single one, of the control
    (``control_name``). References: other real cells of the condition, and real cells through their own sentences. None
    where no perturbed cells are held out.

    Parameters
    ----------
    more_spaces
        See ``spaces.further``.
    max_cells
        Most perturbed cells, see ``some_of``.
    control
        The value of the field ``perturbation`` that means untreated; by default what the corpus says of each data set.
    export, folder
        Formats in which real and generated cells are written too, and where to, see ``exports.write_perturbed``.
    """
    cells = context.corpus.cells(split)
    rows = some_of(np.flatnonzero((cells.fields("cell_type") != "") & perturbed(context, cells, control)), max_cells)
    if not len(rows):
        return None
    types, names = cells.fields("cell_type")[rows], cells.fields("perturbation")[rows]
    labels = np.array([f"{t} · {p}" for t, p in zip(types, names)], dtype=np.str_)
    conditions = {str(c): (str(t), str(p)) for c, t, p in zip(labels, types, names)}

    def generate(name: str, asked: NDArray) -> Cells:
        values = {"perturbation": asked}
        found = generate_cells(context, split, task=TASK, rows=rows, values=values, sampling=sampling, seed=seed)
        return Cells.written(context, found.sentences, cells.dataset_ids[rows], named(name, rows))

    source = context.corpus.cells("train")
    train = dense_expression(source, np.arange(len(source)), len(context.corpus.genes))
    pca = principal(train, components)
    real, made = Cells.stored(context, split, rows), generate("generated", names)
    scrambled = {
        name: generate(name, asked)
        for name, asked in _other_names(context, names, cells.dataset_ids[rows], control, seed)
    }
    own = Cells.written(context, real.sentences, cells.dataset_ids[rows], real.keys)
    sides = {
        "generated": Side.of(made, labels),
        **{name: Side.of(side, labels) for name, side in scrambled.items()},
        "real_through_its_sentence": Side.of(own, labels),
        **training_sides(context, conditions, pca.transform(train), control),
    }
    controls = control_side(context, split, conditions, control)
    moved = moved_controls(context, conditions, controls, control) if controls else {}
    sides |= moved
    if export:
        obs = {"perturbation": names, "cell_type": types}
        _export(context, split, control, folder, export, real.expression, made.expression, obs, pca)
    sets = spaces.most_moved(context.corpus, list(moved["mean_shift"].shift.values()) if moved else [])
    more = spaces.further(context, train, more_spaces, sets, components=components)
    there = Side.of(real, labels)
    found = _beside(distance_metrics(there, sides, lambda some: pca.transform(some.expression), seed))
    found["n"] = len(rows)
    if controls and (changes := change_metrics(there, sides, controls, seed)):
        found["change"] = _beside(changes) | {"n": len(rows)}
    found["spaces"] = {
        name: _beside(distance_metrics(there, sides, embed, seed)) | {"n": len(rows), "space": what}
        for name, (what, embed) in more.items()
    }
    return found


def _other_names(
    context: Context, names: NDArray, datasets: NDArray, control: str, seed: int
) -> list[tuple[str, NDArray]]:
    """A scramble and the names that it asks for, one a cell; none where there are no other names."""
    if (others := elsewhere(names, seed)) is not None:
        return [("shuffled_perturbations", names[others])]
    untreated_name = control_names(context, control)[datasets]
    return [("control_name", untreated_name)] if (untreated_name != "").all() else []


def _beside(scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The model's scores, and under their kind those of the other sides."""
    scrambles, references = ("shuffled_perturbations", "control_name"), ("real_vs_real", "real_through_its_sentence")
    return scores.get("generated", {}) | {
        "scrambles": {k: scores[k] for k in scrambles if k in scores},
        "references": {k: scores[k] for k in references if k in scores},
        "baselines": {k: v for k, v in scores.items() if k not in ("generated", *scrambles, *references)},
    }


def _export(
    context: Context,
    split: str,
    control: str,
    folder: str,
    formats: Sequence[str],
    real: NDArray,
    generated: NDArray,
    obs: Mapping[str, NDArray],
    space: Any,
) -> None:
    source, rows = _all_controls(context, split, control)
    exports.write_perturbed(
        folder,
        formats,
        real=real,
        generated=generated,
        control=dense_expression(source, rows, len(context.corpus.genes)),
        obs=obs,
        control_obs={"cell_type": source.fields("cell_type")[rows]},
        genes=context.corpus.genes.names,
        space=space,
    )


def _all_controls(context: Context, split: str, control: str) -> tuple[CellSource, NDArray[np.int64]]:
    """Control cells of a split or, where it has none, of training."""
    for name in (split, "train"):
        cells = context.corpus.cells(name)
        rows = np.flatnonzero(untreated(context, cells, control))
        if len(rows):
            return cells, rows
    raise ValueError("evaluation.export: the corpus has no control cells; name a data set's control when building it")
