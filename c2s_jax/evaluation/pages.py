"""The report of an evaluation: which pictures, tables and notes go onto the page."""

import os
from typing import Any

import numpy as np

from c2s_jax import report
from c2s_jax.data.ragged import places
from c2s_jax.evaluation import controls, suite_pages
from c2s_jax.evaluation.annotation import UNPARSED, Annotations
from c2s_jax.evaluation.context import Context
from c2s_jax.evaluation.generation import Generated, Populations, Spaces

REFERENCES = {
    "real_vs_real": "real vs real",
    "shuffled_labels": "shuffled labels",
}


def write(
    settings: dict[str, Any],
    workdir: str,
    context: Context,
    metrics: dict[str, Any],
    found: Annotations | None,
    made: Generated | None,
    cells: Populations | None,
) -> None:
    """Write ``report.html`` into ``workdir``; ``settings`` is the run's configuration as plain values.

    None takes the place of what was not asked: annotations, or generated cells and the populations made of them.
    """
    figures = [
        *(_annotation_figures(metrics["annotation"], found) if found else ()),
        *(_generation_figures(context, metrics["generation"], cells) if cells else ()),
        *suite_pages.figures(metrics),
        *_lines(context),
        report.learning_curves(report.read_metrics(os.path.join(workdir, "metrics.jsonl"))),
    ]
    report.write_report(
        os.path.join(workdir, "report.html"),
        title=f"{settings['name']}: cells as sentences",
        subtitle=_subtitle(context, metrics),
        metrics=metrics,
        figures=figures,
        tables=[*_tables(metrics, made, context.corpus.genes.names), *suite_pages.tables(metrics)],
        notes=_notes(settings, metrics, cells.spaces if cells else {}),
        config=settings,
    )


def _annotation_figures(annotation: dict[str, Any], found: Annotations) -> list[report.Figure]:
    confusion = report.confusion_matrix(found.true, found.predicted, unparsed=UNPARSED)
    return [confusion, report.reliability_diagram(annotation["calibration"])]


def _generation_figures(context: Context, generation: dict[str, Any], cells: Populations) -> list[report.Figure]:
    genes, (real, made) = context.corpus.genes.names, (cells.real, cells.generated)
    markers = report.marker_genes(cells.train.expression, cells.train.labels, genes)
    return [
        *_maps(cells, cells.spaces),
        report.gene_dotplot(real.expression, real.labels, made.expression, made.labels, genes, markers),
        report.moments_scatter(real.expression, made.expression, genes),
        *(_bars(generation, space, cells.spaces[space]) for space in (Spaces.PCA, Spaces.MODEL)),
    ]


def _maps(cells: Populations, spaces: dict[str, str]) -> list[report.Figure]:
    out = []
    for space, method in ((Spaces.PCA, "umap"), (Spaces.MODEL, "umap")):
        real, generated, name = report.fit_map(cells.real.spaces[space], cells.generated.spaces[space], method)
        out.append(
            report.embedding_map(
                real, cells.real.labels, generated, cells.generated.labels, method=name, space=spaces[space]
            )
        )
    return out


def _bars(generation: dict[str, Any], space: str, description: str) -> report.Figure:
    key = f"scfid{'' if space == Spaces.PCA else f'_{space}'}_by_condition"
    found = generation["references"]
    references = {name: found[k][key] for k, name in REFERENCES.items() if k in found}
    n = {c: (int(a), int(b)) for c, (a, b) in generation["scfid_n"].items()}
    return report.per_condition_bars(generation[key], references, n=n, space=description)


def _lines(context: Context) -> list[report.Figure]:
    """Rank and expression of the expressed genes of training cells, a picture a data set."""
    cells = context.corpus.cells("train")
    out = []
    for dataset, fit in enumerate(context.corpus.rank_expressions):
        rows = np.flatnonzero(cells.dataset_ids == dataset)[:2_000]
        if not len(rows):
            continue
        block = cells.take(rows)
        ranks = places(np.diff(block.indptr))
        name = context.corpus.datasets[dataset]["name"]
        out.append(report.rank_expression(ranks, block.expression.astype(np.float32), fit, dataset=name))
    return out


def _tables(metrics: dict[str, Any], made: Generated | None, genes: tuple[str, ...]) -> list[report.Table]:
    out = []
    if annotation := metrics.get("annotation"):
        names = suite_pages.NAMES | {"majority": "majority class"}
        beside = annotation["baselines"] | annotation["scrambles"]
        rows = {"c2s_jax": annotation, **{names[k]: v for k, v in beside.items()}}
        flagged = controls.unbeaten(annotation, annotation["scrambles"])
        out.append(report.annotation_table(rows, n=annotation["n"], flagged=flagged))
    return out if made is None else [*out, *_generation_tables(metrics["generation"], made, genes)]


def _generation_tables(generation: dict[str, Any], made: Generated, genes: tuple[str, ...]) -> list[report.Table]:
    references = generation["references"]
    columns = ("valid", "unique", "overlap", "knn_accuracy", "scfid", f"scfid_{Spaces.MODEL}")
    shown = {
        "c2s_jax": generation,
        **({"real vs real": references["real_vs_real"]} if "real_vs_real" in references else {}),
        "real through its own sentence": references["real_through_its_sentence"],
        "generated, shuffled labels": references["shuffled_labels"],
    }
    flagged = controls.unbeaten(generation, suite_pages.scrambles_of("generation", generation))
    first = {label: i for i, label in reversed(list(enumerate(made.labels)))}
    samples = [(str(label), made.texts[i]) for label, i in sorted(first.items())]
    return [
        report.comparison_table(
            shown, metrics=columns, title="Conditional cell generation", n=generation["n"], flagged=flagged
        ),
        report.sentence_table(samples, set(genes)),
    ]


def _subtitle(context: Context, metrics: dict[str, Any]) -> str:
    names = ", ".join(d["name"] for d in context.corpus.datasets)
    train, held_out = len(context.corpus.cells("train")), metrics["cells"]
    return f"{names}: {train:,} training cells, {held_out:,} held-out cells ({metrics['split']})"


def _notes(settings: dict[str, Any], metrics: dict[str, Any], spaces: dict[str, str]) -> dict[str, list[str]]:
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in metrics["seconds"].items())
    flags = metrics["flags"] or ["None: every result that has a scramble beside it is better than the scramble."]
    measures = _measures(metrics["generation"], spaces) if "generation" in metrics else []
    return {
        "Red flags": flags,
        **({"How the numbers are made": measures} if measures else {}),
        "What was tuned": list(settings["notes"]) or ["Nothing is stated in the configuration (config.notes)."],
        "Run": [
            f"Time: {seconds}.",
            f"Seed {settings['seed']}, {settings['steps']} steps of {settings['batch_size']} rows.",
        ],
    }


def _measures(generation: dict[str, Any], spaces: dict[str, str]) -> list[str]:
    skipped = generation["skipped_conditions"]
    out = [
        f"scFID is the unweighted mean over cell types, in {spaces[Spaces.PCA]} and in {spaces[Spaces.MODEL]}.",
        (
            "“Real vs real” puts training cells of the same types in the place of generated ones; “shuffled labels” "
            "keeps the generated cells and permutes the types they were asked for."
        ),
        (
            "Expression of a generated cell is read off the rank→expression line, so it has no ties and less noise "
            "than counts; “real through its own sentence” shows what that alone costs."
        ),
        f"k-NN accuracy: k = {generation['k']} among training cells, in {spaces[Spaces.PCA]}.",
    ]
    if skipped:
        out.append(f"Left out of scFID for having fewer than two cells on a side: {', '.join(skipped)}.")
    return out
