"""Prompts as tokens, with as many genes as the model can read."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data import Formatter, Request
from c2s_jax.data.fitting import cut_prompts
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.data.requests import Draft, draft_of
from c2s_jax.data.texts import numbers


def fitted(
    formatter: Formatter, requests: Sequence[Request], genes: NDArray[np.int32], indptr: NDArray[np.int64], limit: int
) -> list[NDArray[np.int32]]:
    """Tokens of prompts with a gene list each, which loses genes until its prompt has ``limit`` tokens.

    Where genes were lost, the number of genes that a prompt tells is of those left. A prompt that is too long with a
    single gene stays so.
    """
    draft = draft_of(requests, indptr, None)
    draft = dataclasses.replace(draft, templates=[dataclasses.replace(t, response="") for t in draft.templates])
    slots, lists = formatter.slots(draft), formatter.rows.lists(genes, indptr)
    given = np.array([int(str(dict(r.values).get("num_genes", 0))) for r in requests], np.int64)

    def told(kept: NDArray[np.int64]) -> Draft:
        return draft.replace_texts(num_genes=numbers(np.where(kept < lists.lengths, kept, given)))

    kept = cut_prompts(formatter, told, slots, lists, limit)
    found = formatter.tokens(told(kept), genes[positions(indptr[:-1], kept)], offsets(kept), with_response=False)
    return np.split(found.tokens, found.indptr[1:-1])
