"""How many genes a generated cell gets, and the tokens that are kept for them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells import GeneVocabulary
from c2s_jax.inference.language_model import LanguageModel

DEFAULT_GENES = 200  # of a model that does not say how many it was trained on


def genes_of_answer(
    model: LanguageModel,
    n_genes: int | None,
    vocabulary: GeneVocabulary,
    ask: Callable[[int], Sequence[NDArray[np.int32]]],
    report: list[str],
    *,
    lists: int = 1,
) -> int:
    """Genes of each answer: as many as asked for, by default as in training, if so many are there and fit.

    Parameters
    ----------
    n_genes
        As many as asked for.
    ask
        Makes prompts that show no cell, for answers of so many genes.
    report
        Gets a line if fewer fit than in training.
    lists
        Sentences that share the context: 2 where prompts show a cell, which then has as much room as the answer.

    Raises
    ------
    ValueError
        If more were asked for than there are.
    """
    if n_genes is not None:
        if not 1 <= n_genes <= len(vocabulary):
            raise ValueError(f"n_genes={n_genes} must be from 1 to {len(vocabulary):,}, the genes there are")
        return n_genes
    trained = model.card.n_genes if model.card else DEFAULT_GENES
    most = min(trained, len(vocabulary))
    words = max(map(len, ask(most)), default=0)
    need = lists * answer_tokens(model, np.arange(1, most + 1), vocabulary)
    fitting = max(1, int(np.count_nonzero(need <= model.context - words)))
    if fitting < most:
        report.append(
            f"{fitting} genes a cell, not {most}: no more fit the {model.context} tokens that the model reads"
        )
    return fitting


def answer_tokens(model: LanguageModel, n_genes: Any, vocabulary: GeneVocabulary) -> Any:
    """Tokens that so many names, a period and the end may take: their mean and three standard deviations."""
    lengths = model.formatter(vocabulary).table.lengths
    need = n_genes * lengths.mean() + 3 * np.sqrt(n_genes) * lengths.std() + 2
    return 32 * np.ceil(need / 32).astype(int)
