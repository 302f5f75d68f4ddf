"""Measures of cells and of answers: arrays in, floats out.

Every function states its formula and the source of it; numbers that depend on how many cells were
measured come with that count.
"""

from c2s_jax.metrics.classification import Baseline, accuracy, baselines, confusion, macro_f1
from c2s_jax.metrics.frechet import ScFID, scfid, scfid_by_condition, scfid_on_device
from c2s_jax.metrics.kendall import kendall_tau_b, kendall_tau_b_on_device, position_scores
from c2s_jax.metrics.knn import knn_accuracy, knn_predict
from c2s_jax.metrics.moments import Moments, frechet_distance, scfid_of_moments
from c2s_jax.metrics.overlap import gene_jaccard, gene_overlap, pad_gene_lists
from c2s_jax.metrics.reconstruction import reconstruction_r2

__all__ = [
    "Baseline",
    "Moments",
    "ScFID",
    "accuracy",
    "baselines",
    "confusion",
    "frechet_distance",
    "gene_jaccard",
    "gene_overlap",
    "kendall_tau_b",
    "kendall_tau_b_on_device",
    "knn_accuracy",
    "knn_predict",
    "macro_f1",
    "pad_gene_lists",
    "position_scores",
    "reconstruction_r2",
    "scfid",
    "scfid_by_condition",
    "scfid_of_moments",
    "scfid_on_device",
]
