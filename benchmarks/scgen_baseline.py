"""scGen (Lotfollahi et al. 2019): what it makes of control cells, beside real ones of the held-out conditions.

    python3.11 -m venv ENVIRONMENT && ENVIRONMENT/bin/pip install pertpy 'scvi-tools[jax]' 'statsmodels<0.15'
    python -m benchmarks.scgen_baseline --run=runs/kang/sft --python=ENVIRONMENT/bin/python [--seeds 0 1 2] \\
        [--spaces model FILE.gmt:SET[+SET...]]

scGen learns from the training cells of the run's corpus, expression as the corpus has it, ln(1 + x), and moves the
control cells of each held-out condition's type by the treatment's vector, which other training cells have told it. The
corpus and the model of the space "model" are the run's. Scored by the functions of the suite "perturbation"
(docs/metrics.md); its ``control_cells`` and ``mean_shift`` are there again, so that the two can be held side by side.
A sentence, for the model's embedding, names as many genes at most as the longest of the control cells. Prints JSON.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from numpy.typing import NDArray

from benchmarks._peer import Peer
from c2s_jax import evaluate
from c2s_jax.evaluation import Context, spaces
from c2s_jax.evaluation.changes import change_metrics
from c2s_jax.evaluation.context import dense_expression, principal, ranked
from c2s_jax.evaluation.distances import distance_metrics
from c2s_jax.evaluation.perturbed import control_names, control_side, moved_controls, perturbed
from c2s_jax.evaluation.sides import Cells, Embed, Side

LN10 = np.float32(np.log(10))


class Question:
    """Held-out perturbed cells, control cells of their types, and the spaces in which others are compared with them."""

    def __init__(self, context: Context, more_spaces: Sequence[str], components: int):
        cells, genes = context.corpus.cells("test"), len(context.corpus.genes)
        rows = np.flatnonzero((cells.fields("cell_type") != "") & perturbed(context, cells))
        types, names = cells.fields("cell_type")[rows], cells.fields("perturbation")[rows]
        labels = np.array([f"{t} · {p}" for t, p in zip(types, names)])
        self.context = context
        self.conditions = {str(c): (str(t), str(p)) for c, t, p in zip(labels, types, names)}
        self.real = Side.of(Cells.stored(context, "test", rows), labels)
        controls = control_side(context, "test", self.conditions)
        if controls is None or controls.rows.keys() != self.conditions.keys():
            raise SystemExit("error: a held-out condition's type has no control cells")
        self.controls = controls
        train = context.corpus.cells("train")
        self.train = dense_expression(train, np.arange(len(train)), genes)
        pca = principal(self.train, components)
        self.spaces: dict[str, Embed] = {"PCA": lambda some: pca.transform(some.expression)}
        more = spaces.further(context, self.train, more_spaces, [], components=components)
        self.spaces |= {name: embed for name, (_, embed) in more.items()}

    def control_types(self) -> NDArray[np.str_]:
        """Of each control cell."""
        out = np.empty(len(self.controls.cells), dtype=object)
        for condition, rows in self.controls.rows.items():
            out[rows] = self.conditions[condition][0]
        return out.astype(np.str_)

    def answer(self, moved: Mapping[str, NDArray[np.float32]]) -> Side:
        """Control cells moved by each treatment, log10 [C, G], each condition's in the place of its cells."""
        longest = int(np.diff(self.controls.cells.sentences.indptr).max())
        parts, rows, n = [], {}, 0
        for condition, (_, treatment) in self.conditions.items():
            expression = moved[treatment][self.controls.rows[condition]]
            parts.append(Cells(expression, ranked(expression, longest), self.controls.keys(condition)))
            rows[condition] = np.arange(n, n := n + len(expression))
        return Side(Cells.together(parts), rows)

    def scores(self, sides: Mapping[str, Side]) -> dict[str, dict[str, Any]]:
        """Of each side: means over conditions with their intervals, in each space and of the change."""
        found: dict[str, dict[str, Any]] = {name: {} for name in sides}
        for space, embed in self.spaces.items():
            for name, scores in distance_metrics(self.real, sides, embed, 0).items():
                found[name][space] = _means(scores, ("scfid", "wasserstein"))
        for name, scores in change_metrics(self.real, sides, self.controls, 0).items():
            found[name]["change"] = _means(scores, ("pearson_delta", "pearson_delta_top", "de_overlap"))
        return found


def _means(scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: scores[key] for name in names for key in (name, f"{name}_ci")}


def export(path: Path, log10: NDArray[np.float32], obs: Mapping[str, NDArray], names: tuple[str, ...]) -> None:
    """Cells as scGen reads them."""
    columns = {key: pd.Categorical(values) for key, values in obs.items()}
    index = pd.Index([f"cell_{i}" for i in range(len(log10))])
    out = ad.AnnData(log10 * LN10, obs=pd.DataFrame(columns, index=index), var=pd.DataFrame(index=pd.Index(names)))
    out.write_h5ad(path)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="workdir of a tuned model (benchmarks.grpo_kang)")
    parser.add_argument("--python", required=True, help="interpreter that has pertpy and scvi-tools[jax]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100, help="at most")
    parser.add_argument("--spaces", nargs="+", default=["model"], help="as evaluation.more_spaces, docs/metrics.md")
    given = parser.parse_args()
    config = ConfigDict(json.loads((given.run / "config.json").read_text()))
    with contextlib.redirect_stdout(sys.stderr):
        context = evaluate.open_context(config, str(given.run), **evaluate.restore(config, str(given.run))[1])
    question = Question(context, given.spaces, config.evaluation.pca_components)
    controls = question.controls
    sides = {"control_cells": controls, **moved_controls(context, question.conditions, controls)}
    peer, genes = Peer("_scgen_peer", python=given.python), context.corpus.genes.names
    train, types = context.corpus.cells("train"), question.control_types()
    (control,) = set(control_names(context).tolist())
    told = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        obs = {field: train.fields(field) for field in ("cell_type", "perturbation")}
        export(folder / "train.h5ad", question.train, obs, genes)
        obs = {"cell_type": types, "perturbation": np.full(len(types), control)}
        export(folder / "control.h5ad", question.controls.cells.expression, obs, genes)
        for seed in given.seeds:
            called = f"scGen, seed {seed}"
            told[called] = peer("respond", folder=name, seed=seed, control=control, epochs=given.epochs)
            asked = {treatment for _, treatment in question.conditions.values()}
            moved = {t: np.maximum(np.load(folder / f"{t}.npy") / LN10, 0) for t in asked}
            sides[called] = question.answer(moved)
    found = {name: scores | told.get(name, {}) for name, scores in question.scores(sides).items()}
    print(json.dumps(found | {"held_out_cells": len(question.real.cells), "versions": peer("about")}, indent=1))
    peer.close()


if __name__ == "__main__":
    main()
