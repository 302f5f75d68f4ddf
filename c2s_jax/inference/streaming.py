"""Cells through a model block by block: a progress bar, results that survive a stop, missing values for empty cells."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from c2s_jax.inference.inquiry import Inquiry
from c2s_jax.inference.parts import Parts, key_of
from c2s_jax.inference.reading import Block

BLOCK_CELLS = 512
Compute = Callable[[NDArray[np.int64], list[list[NDArray[np.int32]]], Callable[[int], None]], Mapping[str, NDArray]]
"""Rows of N cells, prompts in each wording, a function to call with the number of prompts done -> arrays [N, …]."""


def over_cells(
    inquiry: Inquiry,
    compute: Compute,
    *,
    what: str,
    settings: Mapping[str, Any],
    resume: str | Path | None,
    progress: bool,
) -> Iterator[tuple[Block, NDArray[np.int64], Mapping[str, NDArray]]]:
    """Ask about every cell.

    Parameters
    ----------
    inquiry
        Cells and prompts.
    compute
        What to do with the prompts of a block.
    what
        Name of the progress bar.
    settings
        Whatever else results depend on.
    resume
        Folder for results of blocks; those that are there already, for the same prompts, model and settings, are used.
    progress
        Whether to show a bar with cells a second and the time left.

    Yields
    ------
    Each block, the rows in it that have a result, and their arrays.
    """
    parts, n_wordings = Parts(resume), len(inquiry.askers)
    fixed = {"what": what, "model": inquiry.model.fingerprint, **settings}
    with cell_bar(inquiry.adata.n_obs, what, progress) as bar:
        for number, block in enumerate(inquiry.reader.blocks(BLOCK_CELLS)):
            rows, genes, indptr = inquiry.filled(block)
            found: Mapping[str, NDArray] = {}
            meter = Meter(bar, n_wordings)
            if len(rows):
                asked = [inquiry.write(block.start + rows, genes, indptr, wording=i) for i in range(n_wordings)]
                key = key_of(fixed, [tokens for prompts in asked for tokens in prompts])
                kept = parts.load(number, key)
                found = compute(block.start + rows, asked, meter.advance) if kept is None else kept
                if kept is None:
                    parts.save(number, key, found)
            meter.finish(len(block))
            yield block, rows, found


def cell_bar(cells: int, what: str, show: bool) -> Any:
    """Bar with cells a second and the time left."""
    return tqdm(total=cells, desc=what, unit="cell", disable=not show, mininterval=0.5, smoothing=0.1)


class Meter:
    """Moves a bar over the cells of one block as their prompts are done, each cell having several."""

    def __init__(self, bar: Any, each: int = 1):
        self._bar, self._each, self._prompts, self._shown = bar, each, 0, 0

    def advance(self, prompts: int) -> None:
        """Some prompts are done."""
        self._prompts += prompts
        self.finish(self._prompts // self._each)

    def finish(self, cells: int) -> None:
        """So many cells of the block are done."""
        self._bar.update(max(cells - self._shown, 0))
        self._shown = max(cells, self._shown)
