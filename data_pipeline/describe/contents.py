"""What a corpus holds beside labels: samples, neighbourhoods and texts."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.corpus import Corpus
from c2s_jax.report import Table
from data_pipeline.describe.counts import all_cells, spread

MULTI_CELL = 5
"""Cells a sample needs at least, so that the tasks of several cells can draw from it by default."""


def sample_table(corpus: Corpus) -> Table:
    """Number and size of samples, by split."""
    rows: list[list[Any]] = []
    for cells in all_cells(corpus):
        sizes = group_sizes(cells.groups)
        large = sizes[sizes >= MULTI_CELL]
        share = f"{large.sum() / max(sizes.sum(), 1):.1%}"
        rows.append([cells.split, len(sizes), spread(sizes), int(sizes.max(initial=0)), len(large), share])
    caption = (
        "Cells of one data set with the same donor and tissue. Tasks of several cells draw from one sample: those with "
        f"{MULTI_CELL} cells or more, which hold the share of cells in the last column."
    )
    header = ["", "Samples", "Cells a sample", "Largest", f"With ≥ {MULTI_CELL} cells", "Their cells"]
    return Table("Samples", caption, header, rows, section="Samples and neighbourhoods")


def group_sizes(groups: NDArray[np.int32]) -> NDArray[np.int64]:
    """Cells of each group there is."""
    sizes = np.bincount(groups) if len(groups) else np.zeros(0, np.int64)
    return sizes[sizes > 0]


def neighbour_table(corpus: Corpus) -> Table | None:
    """Neighbours a cell, by data set and split; None where no data set has a radius."""
    rows: list[list[Any]] = []
    for cells in all_cells(corpus):
        if cells.neighbours is None:
            continue
        degrees = np.diff(cells.neighbours[0])
        for number, entry in enumerate(corpus.datasets):
            own = degrees[cells.dataset_ids == number]
            if entry.get("radius") and len(own):
                radius = f"{entry['radius']:g} {entry.get('spatial_unit', '')}".strip()
                rows.append([entry["name"], cells.split, radius, len(own), spread(own), f"{np.mean(own == 0):.1%}"])
    if not rows:
        return None
    caption = (
        "Other cells of the same split within the radius: median, and the middle 90 % of cells. A split by tiles keeps "
        "neighbours together."
    )
    header = ["", "Split", "Radius", "Cells", "Neighbours a cell", "Without any"]
    return Table("Neighbours in space", caption, header, rows, section="Samples and neighbourhoods")


def text_table(corpus: Corpus) -> Table:
    """Abstracts, captions and questions of each data set."""
    questions = Counter((question.dataset, question.split) for question in corpus.questions)
    rows: list[list[Any]] = []
    for number, entry in enumerate(corpus.datasets):
        captions = entry.get("captions", {})
        asked = "/".join(f"{questions[number, split]:,}" for split in corpus.splits)
        rows.append(
            [
                entry["name"],
                len(entry["abstracts"]),
                len(captions),
                sum(map(len, captions.values())),
                asked if corpus.questions else 0,
                entry.get("control") or "–",
            ]
        )
    caption = (
        f"Captioned: values of the caption field that have captions. Questions: {'/'.join(corpus.splits)}. "
        "Control: the perturbation that means untreated."
    )
    header = ["", "Abstracts", "Captioned", "Captions", "Questions", "Control"]
    return Table("Texts", caption, header, rows, section="Texts and knowledge")


def knowledge_table(corpus: Corpus) -> Table | None:
    """Gene sets by source and interactions by source and kind; None where there are none."""
    rows: list[list[Any]] = []
    for source, sets in _by(corpus.gene_sets, lambda x: x.source).items():
        splits = Counter(x.split for x in sets)
        sizes = spread(np.array([len(x.genes) for x in sets]))
        rows.append([source, "gene sets", len(sets), "/".join(f"{splits[s]:,}" for s in corpus.splits), sizes])
    for (source, kind), pairs in _by(corpus.interactions, lambda x: (x.source, x.kind)).items():
        rows.append([source, f"interactions: {kind}", len(pairs), "–", "–"])
    if not rows:
        return None
    caption = "Genes a set: of those in this corpus. Interactions belong to no split."
    header = ["", "What", "Number", "/".join(corpus.splits), "Genes a set"]
    return Table("Gene knowledge", caption, header, rows, section="Texts and knowledge")


def _by(items: list[Any], key: Any) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
