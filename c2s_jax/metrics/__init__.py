"""Measures of cells and of answers: arrays in, floats out.

Every function states its formula and the source of it; numbers that depend on how many cells were
measured come with that count.
"""

from c2s_jax.metrics.bertscore import BertScore, TokenEncoder, bertscore
from c2s_jax.metrics.calibration import Calibration, calibration
from c2s_jax.metrics.classification import Baseline, accuracy, auroc, baselines, confusion, label_scores, macro_f1
from c2s_jax.metrics.discrepancy import CELLOT_GAMMAS, median_gamma, mmd
from c2s_jax.metrics.frechet import ScFID, scfid, scfid_by_condition, scfid_on_device
from c2s_jax.metrics.influence import Influence, mmd_influence, scfid_influence, wasserstein_influence
from c2s_jax.metrics.integration import batch_mixing, silhouette
from c2s_jax.metrics.kendall import kendall_tau_b, kendall_tau_b_on_device, position_scores
from c2s_jax.metrics.knn import knn_accuracy, knn_predict
from c2s_jax.metrics.matching import foscttm, foscttm_by_direction
from c2s_jax.metrics.moments import Moments, frechet_distance, scfid_of_moments
from c2s_jax.metrics.optimal_transport import Transport, transport, wasserstein
from c2s_jax.metrics.overlap import gene_jaccard, gene_overlap, pad_gene_lists, positional_agreement
from c2s_jax.metrics.perturbation import DeltaCorrelation, de_genes, de_overlap, delta_correlation
from c2s_jax.metrics.reconstruction import reconstruction_r2
from c2s_jax.metrics.resampled_change import CHANGE_SCORES, MeasuredChange, Profiles
from c2s_jax.metrics.resampling import Interval, bootstrap, cell_weights, shifted_interval

__all__ = [
    "CELLOT_GAMMAS",
    "CHANGE_SCORES",
    "Baseline",
    "BertScore",
    "Calibration",
    "DeltaCorrelation",
    "Influence",
    "Interval",
    "MeasuredChange",
    "Moments",
    "Profiles",
    "ScFID",
    "TokenEncoder",
    "Transport",
    "accuracy",
    "auroc",
    "baselines",
    "batch_mixing",
    "bertscore",
    "bootstrap",
    "calibration",
    "cell_weights",
    "confusion",
    "de_genes",
    "de_overlap",
    "delta_correlation",
    "foscttm",
    "foscttm_by_direction",
    "frechet_distance",
    "gene_jaccard",
    "gene_overlap",
    "kendall_tau_b",
    "kendall_tau_b_on_device",
    "knn_accuracy",
    "knn_predict",
    "label_scores",
    "macro_f1",
    "median_gamma",
    "mmd",
    "mmd_influence",
    "pad_gene_lists",
    "position_scores",
    "positional_agreement",
    "reconstruction_r2",
    "scfid",
    "scfid_by_condition",
    "scfid_influence",
    "scfid_of_moments",
    "scfid_on_device",
    "shifted_interval",
    "silhouette",
    "transport",
    "wasserstein",
    "wasserstein_influence",
]
