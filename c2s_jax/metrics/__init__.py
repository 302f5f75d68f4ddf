"""Measures of cells and of answers: arrays in, floats out.

Every function states its formula and the source of it; numbers that depend on how many cells were
measured come with that count.
"""

from c2s_jax.metrics.classification import Baseline, accuracy, baselines, confusion, macro_f1
from c2s_jax.metrics.frechet import ScFID, frechet_distance, scfid, scfid_by_condition
from c2s_jax.metrics.knn import knn_accuracy, knn_predict
from c2s_jax.metrics.overlap import gene_jaccard, gene_overlap, pad_gene_lists
from c2s_jax.metrics.reconstruction import reconstruction_r2

__all__ = [
    "Baseline",
    "ScFID",
    "accuracy",
    "baselines",
    "confusion",
    "frechet_distance",
    "gene_jaccard",
    "gene_overlap",
    "knn_accuracy",
    "knn_predict",
    "macro_f1",
    "pad_gene_lists",
    "reconstruction_r2",
    "scfid",
    "scfid_by_condition",
]
