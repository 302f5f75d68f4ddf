"""Rewards that compare texts."""

import numpy as np
from numpy.typing import NDArray

from c2s_jax.encoders import load_text_encoder
from c2s_jax.metrics import bertscore
from c2s_jax.rl.rewards.base import Completions, Reward, World


def bert_score(world: World, *, encoder: str, layer: int = 0) -> Reward:
    """BERTScore F1 of the answer with the reference, the paper's reward for questions.

    Parameters
    ----------
    encoder
        Folder or hub id of a BERT, e.g. ``dmis-lab/biobert-base-cased-v1.1``.
    layer
        Whose hidden states are compared; 0 for the last.
    """
    texts = load_text_encoder(encoder)

    def reward(completions: Completions) -> NDArray[np.float64]:
        return bertscore(completions.answers, completions.wanted, texts, layer=layer or None).f1

    return reward
