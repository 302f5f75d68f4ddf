"""All that is told about a corpus, as tables and pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.corpus import Corpus
from c2s_jax.report import Figure, Table, Tile, write_report
from c2s_jax.text import Tokenizer
from data_pipeline.describe import contents, counts, figures, tasks
from data_pipeline.describe.text import for_page, text_of


@dataclass(frozen=True)
class Description:
    """A corpus described.

    Attributes
    ----------
    corpus
        What is described.
    supported
        Split → task → its examples, or why there are none.
    lengths
        Task → tokens of prompt and whole of some examples, int64 [N, 2]; empty without a tokenizer.
    tables
        By section.
    """

    corpus: Corpus
    supported: tasks.Supported
    lengths: dict[str, NDArray[np.int64]]
    tables: list[Table]

    def text(self) -> str:
        """For a terminal."""
        return f"{self.corpus.path}\n\n{text_of(self.tables)}"

    def write_html(self, path: str | Path) -> Path:
        """One page that needs nothing beside it, with the tables and pictures of them."""
        datasets = self.corpus.datasets
        return write_report(
            path,
            title=f"Corpus {self.corpus.path.resolve().name}",
            subtitle=", ".join(entry["name"] for entry in datasets[:8]) + (", …" if len(datasets) > 8 else ""),
            metrics={},
            tables=[for_page(table) for table in self.tables],
            figures=self.pictures(),
            tiles=self._tiles(),
            notes={entry["name"]: entry["provenance"]["report"] for entry in datasets},
        )

    def pictures(self) -> list[Figure]:
        """Distributions of genes, labels, samples, neighbours and tokens, and fits of expression."""
        c = self.corpus
        found: list[Figure | None] = [figures.genes_figure(c), *figures.label_figures(c), figures.sample_figure(c)]
        found += [figures.neighbour_figure(c), *figures.fit_figures(c), figures.token_figure(self.lengths)]
        return [figure for figure in found if figure is not None]

    def _tiles(self) -> list[Tile]:
        splits = counts.all_cells(self.corpus)
        first = self.supported[self.corpus.splits[0]]
        possible = sum(not isinstance(stream, str) for stream in first.values())
        types = len(counts.label_counts(splits, "cell_type")[0])
        r2 = [entry["rank_expression"]["r2"] for entry in self.corpus.datasets]
        return [
            Tile("Cells", f"{sum(map(len, splits)):,}", f"of {len(self.corpus.datasets):,} data sets"),
            Tile("Genes", f"{len(self.corpus.genes):,}", "names known to the corpus"),
            Tile("Cell types", f"{types:,}", "different labels"),
            Tile("Tasks", f"{possible} of {len(first)}", f"have examples in {self.corpus.splits[0]}"),
            Tile("Rank → expression R²", f"{np.median(r2):.3f}", "median over data sets"),
        ]


def describe(path: str | Path | Corpus, *, tokenizer: Tokenizer | None = None, prompts: int = 1) -> Description:
    """Count, try and measure what is in a corpus.

    Parameters
    ----------
    path
        Its folder.
    tokenizer
        To measure the length of examples with; None: lengths are not told.
    prompts
        Sample prompts of each task.

    Raises
    ------
    FileNotFoundError, CorpusError
        If there is no corpus, or one that is damaged.
    """
    corpus = path if isinstance(path, Corpus) else Corpus(path)
    supported = tasks.supported_tasks(corpus)
    lengths = {} if tokenizer is None else tasks.token_lengths(corpus, supported, tokenizer)
    tables = [
        counts.split_table(corpus),
        counts.dataset_table(corpus),
        counts.field_table(corpus),
        *counts.label_tables(corpus),
        contents.sample_table(corpus),
        contents.neighbour_table(corpus),
        contents.text_table(corpus),
        contents.knowledge_table(corpus),
        *tasks.task_tables(supported),
        tasks.length_table(lengths) if lengths else None,
        tasks.prompt_table(corpus, supported, prompts) if prompts else None,
    ]
    return Description(corpus, supported, lengths, [table for table in tables if table is not None])
