"""Pictures and a self-contained HTML page of a run, from plain arrays and numbers."""

from c2s_jax.report.curves import learning_curves, read_metrics
from c2s_jax.report.embedding import embedding_map, fit_map
from c2s_jax.report.figures import confusion_matrix, per_condition_bars, rank_expression
from c2s_jax.report.genes import gene_dotplot, marker_genes
from c2s_jax.report.moments import moments_scatter
from c2s_jax.report.page import Tile, headline_tiles, write_report
from c2s_jax.report.reliability import reliability_diagram
from c2s_jax.report.style import Figure
from c2s_jax.report.tables import Table, annotation_table, comparison_table, sentence_table

__all__ = [
    "Figure",
    "Table",
    "Tile",
    "annotation_table",
    "comparison_table",
    "confusion_matrix",
    "embedding_map",
    "fit_map",
    "gene_dotplot",
    "headline_tiles",
    "learning_curves",
    "marker_genes",
    "moments_scatter",
    "per_condition_bars",
    "rank_expression",
    "read_metrics",
    "reliability_diagram",
    "sentence_table",
    "write_report",
]
