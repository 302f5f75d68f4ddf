"""Tables of the report."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

Cell = str | float | int | None | Markup


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes
    ----------
    title, caption
        Heading, and how to read the table.
    header
        Column names; the first column holds the rows' names.
    rows
        Cells: text, numbers (None and NaN show as a dash), or ready Markup.
    best
        (row, column) pairs to print bold.
    section
        Heading of the report under which it stands.
    """

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    best: Collection[tuple[int, int]] = field(default_factory=frozenset)
    section: str = "Tables"


@dataclass(frozen=True)
class Measure:
    """How a metric is named, written and read."""

    name: str
    better: str  # "higher", "lower" or ""
    meaning: str
    percent: bool = False


MEASURES = {
    "accuracy": Measure("Accuracy", "higher", "share of right answers", True),
    "macro_f1": Measure("Macro-F1", "higher", "F1 averaged over types, rare ones counting as much as common ones"),
    "valid": Measure("Valid genes", "higher", "share of generated words that are gene names of the data", True),
    "unique": Measure("Unique genes", "higher", "share of valid words that do not repeat one before", True),
    "overlap": Measure("Gene overlap", "higher", "share of a real cell's genes found in the one written for it", True),
    "knn_accuracy": Measure(
        "k-NN accuracy", "higher", "share whose nearest real cells are of the type asked for", True
    ),
    "scfid": Measure("scFID", "lower", "Fréchet distance of cells by condition, mean over conditions"),
    "scfid_model": Measure("scFID, model", "lower", "the same in the model's own embedding"),
    "silhouette": Measure("Silhouette", "higher", "how far types lie apart: 1 apart, 0 overlapping, negative wrong"),
    "batch_mixing": Measure("Batch mixing", "higher", "1 where batches of a type overlap, 0 where they lie apart"),
    "foscttm": Measure("FOSCTTM", "lower", "share of wrong matches closer than the true one; 0.5 is chance"),
    "foscttm_cells_to_bulk": Measure("Cells → bulk", "lower", "FOSCTTM looking from cells"),
    "foscttm_bulk_to_cells": Measure("Bulk → cells", "lower", "FOSCTTM looking from bulk"),
    "bertscore": Measure("BERTScore F1", "higher", "how well the words of answer and reference find each other"),
    "precision": Measure("Precision", "higher", "of BERTScore: of the answer's words"),
    "recall": Measure("Recall", "higher", "of BERTScore: of the reference's words"),
    "exact": Measure("Exact", "higher", "share of answers that are a reference, word for word", True),
    "tau": Measure("Kendall's τ-b", "higher", "agreement of the order of genes with measured expression"),
    "spearman": Measure("Spearman", "higher", "correlation of ranks with measured expression"),
    "pearson": Measure("Pearson", "higher", "correlation with measured expression; near 1 for any two cells"),
    "pearson_delta": Measure("Pearson of change", "higher", "correlation of predicted and measured change"),
    "spearman_delta": Measure("Spearman of change", "higher", "the same of ranks"),
    "pearson_delta_top": Measure("Pearson, DE genes", "higher", "over the genes that differ most from control cells"),
    "spearman_delta_top": Measure("Spearman, DE genes", "higher", "the same of ranks"),
    "de_overlap": Measure("DE overlap", "higher", "share of these genes found", True),
    "mmd": Measure("MMD²", "lower", "squared maximum mean discrepancy by condition, median heuristic"),
    "wasserstein": Measure("W2", "lower", "2-Wasserstein distance by condition"),
    "jaccard": Measure("Jaccard", "higher", "genes in both lists, of genes in either"),
    "r2": Measure("R²", "higher", "share of variance of expression explained by rank, within the fit's range"),
    "r2_all": Measure("R², all genes", "higher", "the same over all expressed genes"),
}


def annotation_table(rows: Mapping[str, Mapping[str, Any]], *, n: int, flagged: Collection[str] = ()) -> Table:
    """Accuracy and macro-F1 of the model beside baselines and scrambles.

    Parameters
    ----------
    rows
        Name → {"accuracy": …, "macro_f1": …}, for example "c2s_jax", "majority class", "logistic regression".
    n
        Held-out cells.
    flagged
        As in `comparison_table`.
    """
    table = comparison_table(rows, metrics=("accuracy", "macro_f1"), title="Cell type annotation", n=n, flagged=flagged)
    caption = (
        f"n = {n:,} held-out cells; all rows were fitted on the same training cells. The majority class is "
        "what one gets for knowing nothing; logistic regression on log expression is the method to beat. Shuffled: "
        "the model's answers where it reads the same genes in random order, and its answers dealt out among the cells."
    )
    return Table(table.title, caption, table.header, table.rows, table.best, "Annotation")


def comparison_table(
    rows: Mapping[str, Mapping[str, Any]],
    *,
    metrics: Sequence[str],
    title: str,
    caption: str = "",
    n: int | None = None,
    section: str = "Generation",
    names: Mapping[str, Measure] | None = None,
    flagged: Collection[str] = (),
    apart: Collection[str] = (),
) -> Table:
    """One row a method or reference, one column a metric, the best of each column bold.

    Parameters
    ----------
    rows
        Name → metric → value; missing ones show as a dash. ``<metric>_ci`` is its interval, shown in brackets. Names
        that hold "real" or "shuffled" are references, not competitors: they are never bold.
    metrics
        Keys to show, in order; known ones (`MEASURES`) and those of `names` are named, explained and ranked.
    flagged
        Metrics of the first row to show in red: they beat no scramble.
    apart
        Names of rows that are means over other conditions than the first one: they are never bold.
    """
    known = {**MEASURES, **(names or {})}
    measures = [known.get(key, Measure(key.replace("_", " "), "", "")) for key in metrics]
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    header = ["", *(m.name + arrows[m.better] for m in measures)]
    body: list[list[Cell]] = [
        [name, *(_cell(values, key, m) for key, m in zip(metrics, measures, strict=True))]
        for name, values in rows.items()
    ]
    for column, key in enumerate(metrics, 1):
        if key in flagged and body[0][column] is not None:
            body[0][column] = Markup('<span class="flag">{} ⚑</span>').format(body[0][column])
    meanings = "; ".join(f"{m.name}: {m.meaning}" for m in measures if m.meaning)
    count = f"n = {n:,} cells. " if n is not None else ""
    intervals = any(values.get(f"{key}_ci") for values in rows.values() for key in metrics)
    brackets = "In brackets 95 % intervals." if intervals else ""
    unranked = "Rows over other conditions than the first row's are never bold." if apart else ""
    told = (count.strip(), caption, unranked, f"{meanings}." if meanings else "", brackets)
    caption = " ".join(x for x in told if x)
    ranked = {name: values for name, values in rows.items() if name not in apart}
    best = {(list(rows).index(name), column) for name, column in _best(ranked, metrics, measures)}
    return Table(title, caption, header, body, best, section)


def sentence_table(
    samples: Sequence[tuple[str, str]],
    vocabulary: Collection[str],
    *,
    markers: Mapping[str, Collection[str]] | None = None,
    words: int = 40,
) -> Table:
    """Generated cell sentences as they came, with wrong words marked.

    Parameters
    ----------
    samples
        (condition, sentence).
    vocabulary
        Known gene names, upper case.
    markers
        Condition → its marker genes, set bold.
    words
        Words shown of each sentence.
    """
    rows: list[list[Cell]] = []
    for condition, sentence in samples:
        names = sentence.strip().removesuffix(".").split()
        text = _marked(names[:words], vocabulary, (markers or {}).get(condition, ()))
        if len(names) > words:
            text += Markup(' <span class="more">… {} more</span>').format(len(names) - words)
        rows.append([condition, Markup('<span class="genes">{}</span>').format(text), len(names)])
    caption = (
        "Generated cells as the model wrote them, highest expressed gene first. "
        "Red and struck through: not a gene of this data. Amber: a gene named before."
        + (" Bold blue: a marker of the type asked for, chosen on training cells." if markers else "")
    )
    return Table("Cells the model wrote", caption, ["Asked for", "Generated sentence", "Words"], rows, (), "Generation")


def _marked(names: Sequence[str], vocabulary: Collection[str], markers: Collection[str]) -> Markup:
    seen: set[str] = set()
    parts = []
    for name in names:
        key = name.upper()
        kind = "unknown" if key not in vocabulary else "repeat" if key in seen else "marker" if key in markers else ""
        seen.add(key)
        # a span each, so that HLA-DRA is not broken at its hyphen
        parts.append(Markup('<span class="{}">{}</span>' if kind else "<span>{1}</span>").format(kind, name))
    return Markup(" ").join(parts)


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _cell(values: Mapping[str, Any], key: str, measure: Measure) -> Cell:
    """A metric's value, and its interval where there is one."""
    value, ends = _written(values.get(key), measure), values.get(f"{key}_ci")
    if value is None or not ends:
        return value
    low, high = (_written(end, measure) for end in ends)
    return f"{value} ({low}\N{NO-BREAK SPACE}–\N{NO-BREAK SPACE}{high})"


def _written(value: Any, measure: Measure) -> str | None:
    number = _number(value)
    if number is None:
        return None
    return f"{number:.1%}" if measure.percent else f"{number:.3g}" if abs(number) >= 10 else f"{number:.3f}"


def _best(
    rows: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], measures: Sequence[Measure]
) -> set[tuple[str, int]]:
    """Names of rows, and columns in which they are the best of all."""
    best: set[tuple[str, int]] = set()
    for column, (key, measure) in enumerate(zip(metrics, measures, strict=True), 1):
        values = {
            name: number
            for name, row_values in rows.items()
            if not any(word in name.lower() for word in ("real", "shuffled"))
            and (number := _number(row_values.get(key))) is not None
        }
        if len(values) > 1 and measure.better:
            top = (max if measure.better == "higher" else min)(values.values())
            best |= {(name, column) for name, value in values.items() if value == top}
    return best
