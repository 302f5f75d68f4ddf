"""Completions as arrays to train on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def arrays(
    prompts: Sequence[NDArray[np.int32]],
    completions: NDArray[np.int32],
    lengths: NDArray[np.integer],
    logprobs: NDArray[np.float32],
    num_generations: int,
    *,
    pad_id: int,
) -> dict[str, NDArray]:
    """Prompts and completions side by side.

    Parameters
    ----------
    prompts
        P arrays of token ids.
    completions, lengths
        int32 [P * G, C], those of a prompt one after the other, and how many tokens of each count.
    logprobs
        Of the sampler, float32 [P * G, C].
    num_generations
        G.
    pad_id
        Fills rows after their end.

    Returns
    -------
    ``tokens`` int32 [N, T], ``prompt_lengths`` int32 [N], ``completions`` int32 [N, C], ``mask`` and ``sampled``
    float32 [N, C].
    """
    n, limit = completions.shape
    prompt_lengths = np.repeat([len(p) for p in prompts], num_generations).astype(np.int32)
    tokens = np.full((n, int((prompt_lengths + lengths).max())), pad_id, np.int32)
    for i, prompt in enumerate(prompts):
        tokens[i * num_generations : (i + 1) * num_generations, : len(prompt)] = prompt
    there = np.arange(limit) < np.asarray(lengths)[:, None]
    row, place = np.nonzero(there)
    tokens[row, prompt_lengths[row] + place] = completions[row, place]
    return {
        "tokens": tokens,
        "prompt_lengths": prompt_lengths,
        "completions": np.where(there, completions, pad_id).astype(np.int32),
        "mask": there.astype(np.float32),
        "sampled": np.where(there, logprobs, 0).astype(np.float32),
    }
