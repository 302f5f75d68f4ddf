"""Cells and genes: validation, ranking, cell sentences, expression from ranks. No tokens, no JAX."""

from .errors import CellDataError
from .expression import Expression, expression_matrix
from .rank_expression import RankExpression, fit_rank_expression
from .ranking import Ranked, hash_strings, mix, rank_cells
from .sentences import RepairReport, cell_sentences, join_sentences, repair_sentence, split_sentence
from .source import require_obs
from .vocabulary import GeneVocabulary

__all__ = [
    "CellDataError",
    "Expression",
    "GeneVocabulary",
    "RankExpression",
    "Ranked",
    "RepairReport",
    "cell_sentences",
    "expression_matrix",
    "fit_rank_expression",
    "hash_strings",
    "join_sentences",
    "mix",
    "rank_cells",
    "repair_sentence",
    "require_obs",
    "split_sentence",
]
