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
    found: Annotations,
    made: Generated,
    cells: Populations,
) -> None:
    """Write ``report.html`` into ``workdir``; ``settings`` is the run's configuration as plain values."""
    spaces = cells.spaces
    genes = context.corpus.genes.names
    markers = report.marker_genes(cells.train.expression, cells.train.labels, genes)
    figures = [
        report.confusion_matrix(found.true, found.predicted, unparsed=UNPARSED),
        report.reliability_diagram(metrics["annotation"]["calibration"]),
        *_maps(cells, spaces),
        report.gene_dotplot(
            cells.real.expression,
            cells.real.labels,
            cells.generated.expression,
            cells.generated.labels,
            genes,
            markers,
        ),
        report.moments_scatter(cells.real.expression, cells.generated.expression, genes),
        *(_bars(metrics["generation"], space, spaces[space]) for space in (Spaces.PCA, Spaces.MODEL)),
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
        tables=[*_tables(metrics, made, genes), *suite_pages.tables(metrics)],
        notes=_notes(settings, metrics, spaces),
        config=settings,
    )


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
    references = {name: generation["references"][k][key] for k, name in REFERENCES.items()}
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


def _tables(metrics: dict[str, Any], made: Generated, genes: tuple[str, ...]) -> list[report.Table]:
    annotation, generation = metrics["annotation"], metrics["generation"]
    names = {"majority": "majority class", "logistic_regression": "logistic regression"}
    rows = {"c2s_jax": annotation, **{names[k]: v for k, v in annotation["baselines"].items()}}
    references = generation["references"]
    columns = ("valid", "unique", "overlap", "knn_accuracy", "scfid", f"scfid_{Spaces.MODEL}")
    shown = {
        "c2s_jax": generation,
        "real vs real": references["real_vs_real"],
        "real through its own sentence": references["real_through_its_sentence"],
        "generated, shuffled labels": references["shuffled_labels"],
    }
    flagged = controls.unbeaten(generation, suite_pages.scrambles_of("generation", generation))
    first = {label: i for i, label in reversed(list(enumerate(made.labels)))}
    samples = [(str(label), made.texts[i]) for label, i in sorted(first.items())]
    return [
        report.annotation_table(rows, n=annotation["n"]),
        report.comparison_table(
            shown, metrics=columns, title="Conditional cell generation", n=generation["n"], flagged=flagged
        ),
        report.sentence_table(samples, set(genes)),
    ]


def _subtitle(context: Context, metrics: dict[str, Any]) -> str:
    names = ", ".join(d["name"] for d in context.corpus.datasets)
    train, held_out = len(context.corpus.cells("train")), metrics["annotation"]["n"]
    return f"{names}: {train:,} training cells, {held_out:,} held-out cells ({metrics['split']})"


def _notes(settings: dict[str, Any], metrics: dict[str, Any], spaces: dict[str, str]) -> dict[str, list[str]]:
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in metrics["seconds"].items())
    generation = metrics["generation"]
    skipped = generation["skipped_conditions"]
    measures = [
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
        measures.append(f"Left out of scFID for having fewer than two cells on a side: {', '.join(skipped)}.")
    flags = metrics["flags"] or ["None: every result that has a scramble beside it is better than the scramble."]
    return {
        "Red flags": flags,
        "How the numbers are made": measures,
        "What was tuned": list(settings["notes"]) or ["Nothing is stated in the configuration (config.notes)."],
        "Run": [
            f"Time: {seconds}.",
            f"Seed {settings['seed']}, {settings['steps']} steps of {settings['batch_size']} rows.",
        ],
    }
