"""Several completions in a row, each with its prompt: the update computes little but tokens that are there.

Letters: N completions of a phase, C most tokens of one; R rows of T tokens, K of which at most are of completions.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.by_length import bucket
from c2s_jax.data.packing import plan_rows
from c2s_jax.data.ragged import places, positions

TIME_MULTIPLE = 64  # rows are as long as the bucket of the longest completion with its prompt: few programs serve
STEPS = 4  # numbers of rows are rounded up to so many sizes, of completion tokens in a row to twice as many
PER_TOKEN = ("completions", "mask", "sampled")


@dataclasses.dataclass(frozen=True)
class Packing:
    """Where the completions of a phase are: in which part, row of it, and place of the row.

    Attributes
    ----------
    parts, rows, time, most
        Batches (one an optimizer step), and R, T and K of each.
    row
        Row of each completion, counted through all parts, int64 [N].
    number
        Number of each completion in its row, from 0, int64 [N].
    start, first
        Place of its prompt's first token in the row, and of its own among the row's tokens of completions, int64 [N].
    prompt_lengths, lengths
        Tokens of prompts and of completions, int64 [N].
    """

    parts: int
    rows: int
    time: int
    most: int
    row: NDArray[np.int64]
    number: NDArray[np.int64]
    start: NDArray[np.int64]
    first: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def batches(self, arrays: Mapping[str, NDArray]) -> list[dict[str, NDArray]]:
        """What ``rollout.arrays`` gives, packed, part by part.

        Returns
        -------
        For each part ``tokens``, ``positions`` and ``segment_ids`` (0 where nothing is) int32 [R, T]; and [R, K]
        ``at`` int32 (place of the token that predicts), ``owner`` int32 (number of the completion in the row),
        ``completions`` int32, ``mask`` and ``sampled`` float32.
        """
        whole = self.prompt_lengths + self.lengths
        there = positions(self.row * self.time + self.start, whole)
        tokens, place, segment = (np.zeros(self.parts * self.rows * self.time, np.int32) for _ in range(3))
        width = arrays["tokens"].shape[1]
        tokens[there] = arrays["tokens"].ravel()[positions(np.arange(len(whole)) * width, whole)]
        place[there] = places(whole)
        segment[there] = np.repeat(self.number + 1, whole)
        own = self._own()
        at, owner = (np.zeros(self.parts * self.rows * self.most, np.int32) for _ in range(2))
        at[own] = positions(self.start + self.prompt_lengths - 1, self.lengths)
        owner[own] = np.repeat(self.number, self.lengths)
        by_time = {"tokens": tokens, "positions": place, "segment_ids": segment}
        columns = {name: x.reshape(self.parts, self.rows, self.time) for name, x in by_time.items()}
        columns |= {name: x.reshape(self.parts, self.rows, self.most) for name, x in (("at", at), ("owner", owner))}
        columns |= {name: self._laid(arrays[name]) for name in PER_TOKEN}
        return [{name: x[part] for name, x in columns.items()} for part in range(self.parts)]

    def lay(self, **values: NDArray) -> list[dict[str, NDArray]]:
        """Numbers of completion tokens [N, C], or of completions [N], as columns [R, K] of each part; 0 elsewhere."""
        limit = int(self.lengths.max())
        wide = {name: x if x.ndim > 1 else np.broadcast_to(x[:, None], (len(x), limit)) for name, x in values.items()}
        columns = {name: self._laid(x) for name, x in wide.items()}
        return [{name: x[part] for name, x in columns.items()} for part in range(self.parts)]

    def _own(self) -> NDArray[np.int64]:
        return positions(self.row * self.most + self.first, self.lengths)

    def _laid(self, values: NDArray) -> NDArray:
        out = np.zeros(self.parts * self.rows * self.most, values.dtype)
        out[self._own()] = values[np.arange(values.shape[1]) < self.lengths[:, None]]
        return out.reshape(self.parts, self.rows, self.most)


def pack(arrays: Mapping[str, NDArray], *, parts: int = 1, multiple: int = 1) -> Packing:
    """Find places for completions; those of a part are consecutive.

    Parameters
    ----------
    arrays
        What ``rollout.arrays`` gives.
    parts
        Optimizer steps that share the completions evenly.
    multiple
        Of which the rows of a part have to be a multiple.
    """
    prompt_lengths = arrays["prompt_lengths"].astype(np.int64)
    lengths = arrays["mask"].sum(1).astype(np.int64)
    whole, size = prompt_lengths + lengths, len(lengths) // parts
    time = _up(bucket(int(whole.max())), TIME_MULTIPLE)
    row = np.concatenate([plan_rows(whole[i : i + size], size, time) for i in range(0, len(whole), size)])
    used = _up(int(row.max()) + 1, _up(-(-size // STEPS), multiple))
    rows = min(used, _up(size, multiple))
    row += np.repeat(np.arange(parts) * rows, size)
    order = np.argsort(row, kind="stable")
    first_of_row = np.searchsorted(row[order], row[order])
    number, start, first = (np.empty(len(row), np.int64) for _ in range(3))
    number[order] = np.arange(len(row)) - first_of_row
    for out, counts in ((start, whole), (first, lengths)):
        before = np.cumsum(counts[order]) - counts[order]
        out[order] = before - before[first_of_row]
    most = min(time, _up(int((first + lengths).max()), _up(time // (2 * STEPS), TIME_MULTIPLE)))
    return Packing(parts, rows, time, most, row, number, start, first, prompt_lengths, lengths)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
