"""Tables and pictures of the further suites, and what they flag."""

from collections.abc import Mapping, Sequence
from typing import Any

from c2s_jax import report
from c2s_jax.evaluation import controls
from c2s_jax.evaluation.distances import DISTANCES
from c2s_jax.evaluation.texts import TASK_OF
from c2s_jax.metrics import CHANGE_SCORES

SPACE = "perturbation.space"  # stands for every further space
COLUMNS = {
    "embedding": ("knn_accuracy", "silhouette", "batch_mixing"),
    "bulk": ("foscttm", "foscttm_cells_to_bulk", "foscttm_bulk_to_cells"),
    "perturbation": DISTANCES,
    "perturbation.change": CHANGE_SCORES,
    SPACE: DISTANCES,
    "l1000": ("tau", "spearman", "pearson", "pearson_delta"),
    "spatial.niche_annotation": ("accuracy", "macro_f1"),
    "spatial.neighbour_generation": ("overlap", "jaccard"),
    "spatial.same_neighbourhood": ("accuracy", "macro_f1"),
    "spatial.same_niche": ("accuracy", "macro_f1"),
} | dict.fromkeys(TASK_OF, ("bertscore", "precision", "recall", "exact"))
TITLES = {
    "embedding": "Embedding of held-out cells",
    "bulk": "Cells beside pseudobulk of their group",
    "perturbation": "Cells generated under a perturbation",
    "perturbation.change": "Change from control cells",
    SPACE: "Cells generated under a perturbation",
    "l1000": "Responses to perturbations, pair by pair",
    "spatial.niche_annotation": "Niche of a neighbourhood",
    "spatial.neighbour_generation": "A neighbour of a cell",
    "spatial.same_neighbourhood": "Do these cells lie together?",
    "spatial.same_niche": "Are these cells of one niche?",
    "caption": "Captions of clusters",
    "abstract": "Abstracts of data sets",
    "qa": "Answers to questions",
}
DISTRIBUTIONS = {
    "in_distribution": ": of what training has seen",
    "out_of_distribution": ": of what training has not seen",
}
_LINEAR = "Logistic regression sees the mean expression of the cells shown"
CAPTIONS = {
    "spatial.niche_annotation": f"{_LINEAR}.",
    "spatial.neighbour_generation": "“Cell itself” repeats the cell asked about; “other neighbours” are those of other "
    "held-out cells.",
    "spatial.same_neighbourhood": f"{_LINEAR}, as the gap between the first one and the others.",
    "spatial.same_niche": f"{_LINEAR}, as the gap between the two.",
    "embedding": "k-NN votes among training cells. “Genes in random order” embeds the same genes without their order.",
    "bulk": "Cosine similarity, zero-shot. The last row deals the bulk samples out anew.",
    "perturbation": "Means over type × perturbation, in principal components of training expression. Control and "
    "perturbed cells are training cells of the type; “nearest training cell” looks from its control cells.",
    "perturbation.change": "Means over type × perturbation. Every change of mean expression is from the same measured "
    "control cells of the type; what a sentence loses of expression counts as change, see “real through its own "
    "sentence”.",
    SPACE: "Means over type × perturbation.",
    "l1000": "Means over pairs of a control and a treated profile. The control itself is the answer of no change; mean "
    "profiles are of training. “Real vs real” is another profile of the same line and perturbation.",
} | dict.fromkeys(
    TASK_OF,
    "Greedy answers; of several references the best counts. Training answers are given without reading the cells; "
    "“another reference” is one of a prompt's references against the rest.",
)
NAMES = {
    "pca": "PCA of expression",
    "expression": "expression itself",
    "control_cells": "control cells",
    "control": "the control itself",
    "perturbation_mean": "mean profile of the perturbation",
    "cell_line_mean": "mean treated profile of the line",
    "mean_shift": "control + mean change under the perturbation",
    "additive": "control + mean changes under the parts of the combination",
    "perturbed_cells": "cells under any perturbation",
    "nearest_training_cell": "nearest training cell",
    "majority": "majority answer",
    "logistic_regression": "logistic regression",
    "cell_itself": "the cell itself",
    "other_neighbours": "other neighbours",
    "real_vs_real": "real vs real",
    "real_through_its_sentence": "real through its own sentence",
    "shuffled_labels": "shuffled labels",
    "shuffled_genes": "genes in random order (shuffled)",
    "shuffled_pairs": "shuffled bulk samples",
    "shuffled_cells": "shuffled cells",
    "shuffled_questions": "shuffled questions",
    "shuffled_perturbations": "shuffled perturbation names",
    "control_name": "control cells asked for (shuffled)",
    "random_training_answer": "a training answer, at random",
    "central_training_answer": "the most central training answer",
    "another_reference": "another reference",
    "shuffled_prompts": "answers to other prompts (shuffled)",
}


def flags(metrics: Mapping[str, Any]) -> list[str]:
    """What does not beat its scramble, in words, over all suites."""
    out = []
    for suite, values in flat(metrics).items():
        if scrambles := scrambles_of(suite, values):
            out += controls.sentences(suite, values, scrambles)
    return out


def flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Suites by name; tasks of the spatial suite, and parts of the perturbation suite and of texts, count as such."""
    parts = {f"spatial.{task}": values for task, values in (metrics.get("spatial") or {}).items()}
    for suite in TASK_OF:
        sides = (metrics.get(suite) or {}).get("by_distribution", {})
        parts |= {f"{suite}.{side}": values for side, values in sides.items()}
    perturbation = metrics.get("perturbation") or {}
    more = {"change": perturbation.get("change")} | perturbation.get("spaces", {})
    return dict(metrics) | parts | {f"perturbation.{name}": values for name, values in more.items() if values}


def shown(found: Mapping[str, Any]) -> list[str]:
    """The suites that have a table, in the order of ``COLUMNS``."""
    order = list(COLUMNS)
    return sorted(
        (suite for suite in found if kind(suite) in COLUMNS and found[suite]), key=lambda s: order.index(kind(s))
    )


def kind(suite: str) -> str:
    """The key of ``COLUMNS``, ``TITLES`` and ``CAPTIONS`` that is for a suite."""
    first = suite.partition(".")[0]
    if first in TASK_OF:
        return first
    return SPACE if first == "perturbation" and suite not in COLUMNS else suite


def title(suite: str) -> str:
    """The heading of a suite's table."""
    part = suite.partition(".")[2]
    if kind(suite) == SPACE:
        return f"{TITLES[SPACE]}, in the space {part}"
    return TITLES[kind(suite)] + DISTRIBUTIONS.get(part, "")


def scrambles_of(suite: str, values: Any) -> dict[str, Any]:
    """A suite's scrambles by name."""
    if suite == "generation":
        return {"shuffled_labels": values["references"]["shuffled_labels"]}
    return values.get("scrambles", {}) if isinstance(values, Mapping) else {}


def tables(metrics: Mapping[str, Any]) -> list[report.Table]:
    """A table a suite: the model, baselines, references, scrambles."""
    found = flat(metrics)
    out = [table for suite in shown(found) for table in (_table(suite, found[suite]), *_samples(suite, found[suite]))]
    return [*out, _losses(metrics["scaling"])] if metrics.get("scaling") else out


def _losses(losses: Mapping[str, Any]) -> report.Table:
    rows = []
    for task, loss in losses.items():
        row: list[Any] = [task.replace("_", " ")]
        for side in (loss["response"], loss["sequence"]):
            row += [side["nll"], f"{side['low']:.3f} – {side['high']:.3f}" if side["low"] is not None else None]
            row.append(side["tokens"])
        rows.append([*row, loss["n"]])
    header = ["", "response", "95 %", "tokens", "whole sequence", "95 %", "tokens", "samples"]
    caption = (
        "Nats a token: the sum over all tokens of the samples by their number. Response: given the prompt, end token "
        "included. Intervals resample samples. No baseline: compare models of one tokenizer on the same samples."
    )
    return report.Table("Held-out loss by task", caption, header, rows, section="Loss")


def _samples(suite: str, values: Mapping[str, Any]) -> list[report.Table]:
    """What a suite of texts wrote beside what it should have."""
    if not values.get("samples"):
        return []
    rows = [(s["unit"], s["answer"], s["reference"], s["f1"]) for s in values["samples"]]
    caption = f"The first prompt of each of a few. BERTScore: {values['configuration']}."
    header = ("About", "Answer", "Reference", "F1")
    return [report.Table(f"{TITLES[suite]}: examples", caption, header, rows, section=suite.capitalize())]


def sides(values: Mapping[str, Any], parts: Sequence[str]) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """What stands beside a model, by the name of its row, and the rows that are means over other conditions than its.

    Their names say over how many.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    apart = []
    own = _conditions(values)
    for part in parts:
        for name, scores in values.get(part, {}).items():
            row, there = NAMES.get(name, name), _conditions(scores)
            if there != own:
                row += f" ({len(there)} of {len(own)} conditions)"
                apart.append(row)
            rows[row] = scores
    return rows, apart


def _conditions(scores: Mapping[str, Any]) -> set[str]:
    """Those that a side's means are over; none of a side without."""
    return {condition for key in scores if key.endswith("_by_condition") for condition in scores[key]}


def _caption(suite: str, values: Mapping[str, Any]) -> str:
    space = f"In {values['space']}. " if values.get("space") else ""
    drawn = f" Intervals draw {values['resampled']} anew." if values.get("resampled") else ""
    return f"{space}{CAPTIONS[kind(suite)]}{drawn}"


def _table(suite: str, values: Mapping[str, Any]) -> report.Table:
    beside, apart = sides(values, ("baselines", "references", "scrambles"))
    rows = {"c2s_jax": values, **beside}
    return report.comparison_table(
        rows,
        metrics=[key for key in COLUMNS[kind(suite)] if any(scores.get(key) is not None for scores in rows.values())],
        title=title(suite),
        caption=_caption(suite, values),
        n=values["n"],
        section=suite.split(".")[0].capitalize(),
        flagged=controls.unbeaten(values, values.get("scrambles", {})),
        apart=apart,
    )


def figures(metrics: Mapping[str, Any]) -> list[report.Figure]:
    """Bars by condition of the perturbation suite."""
    values = metrics.get("perturbation")
    if not values or not values["scfid_by_condition"]:
        return []
    beside = {
        "real vs real": values["references"].get("real_vs_real"),
        "shuffled names": values["scrambles"].get("shuffled_perturbations"),
        "control asked for": values["scrambles"].get("control_name"),
        "control cells": values["baselines"].get("control_cells"),
    }
    n = {condition: (a, b) for condition, (a, b) in values["condition_n"].items()}
    return [
        report.per_condition_bars(
            values[f"{key}_by_condition"],
            {name: scores[f"{key}_by_condition"] for name, scores in beside.items() if scores},
            n=n,
            measure=name,
            space="principal components",
            section="Perturbation",
        )
        for key, name in (("scfid", "scFID"), ("mmd", "MMD²"))
    ]
