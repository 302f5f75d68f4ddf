"""What every side of ``cpu_vs_hf`` works on: one model, its weights, examples and prompts, as files of plain arrays."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARM_UP = 2  # first steps of a run, not timed
STEPS = 40  # that there are; how much is padding is counted over all, since it varies from step to step
LEARNING_RATE, B1, B2, EPS, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.9, 0.95, 1e-8, 0.01, 1.0

Examples = list[NDArray[np.int32]]


@dataclasses.dataclass
class Workload:
    """One benchmark's inputs.

    Attributes
    ----------
    model
        Settings of ``Gemma2Config``.
    steps
        Examples of each optimizer step, each an array of token ids.
    rows
        The same examples as the packed rows they came from: arrays [steps, rows, seq_len] by name.
    prompts
        Token ids to generate after.
    """

    model: dict[str, Any]
    steps: list[Examples]
    rows: dict[str, Any]
    prompts: Examples

    def save(self, folder: Path) -> None:
        """Write all of it."""
        counts = np.array([len(step) for step in self.steps])
        (folder / "model.json").write_text(json.dumps(self.model))
        np.savez(folder / "rows.npz", **self.rows)
        np.savez(folder / "prompts.npz", *self.prompts)
        np.savez(folder / "examples.npz", counts, *[example for step in self.steps for example in step])

    @classmethod
    def load(cls, folder: Path) -> "Workload":
        """Read what ``save`` wrote."""
        counts, *examples = read(folder / "examples.npz").values()
        ends = np.cumsum(counts)
        steps = [examples[end - count : end] for count, end in zip(counts, ends)]
        prompts = list(read(folder / "prompts.npz").values())
        return cls(json.loads((folder / "model.json").read_text()), steps, read(folder / "rows.npz"), prompts)


def read(path: Path) -> dict[str, NDArray]:
    """Arrays of an npz file."""
    with np.load(path) as arrays:
        return dict(arrays)


def random_batches(steps: Sequence[Examples], size: int) -> list[list[Examples]]:
    """Batches of each step: its examples in random order, ``size`` at once, the last batch smaller."""
    rng = np.random.default_rng(0)
    return [_cut([step[i] for i in rng.permutation(len(step))], size) for step in steps]


def grouped_batches(steps: Sequence[Examples], size: int) -> list[list[Examples]]:
    """Batches of each step when examples of like length are batched, over all steps after the warm-up.

    As ``group_by_length`` of Hugging Face's Trainer, whose mega-batches are of 50 batches.
    """
    rng = np.random.default_rng(0)
    timed = [example for step in steps[WARM_UP:] for example in step]
    timed = [timed[i] for i in rng.permutation(len(timed))]
    batches = []
    for start in range(0, len(timed), 50 * size):
        batches += _cut(sorted(timed[start : start + 50 * size], key=len, reverse=True), size)
    order = rng.permutation(len(batches))
    dealt = [[batches[i] for i in part] for part in np.array_split(order, len(steps) - WARM_UP)]
    return random_batches(steps[:WARM_UP], size) + dealt


def useful(batches: Sequence[list[Examples]]) -> float:
    """Share of tokens that are not padding, when each batch is padded to its longest example."""
    rows = [(sum(map(len, batch)), len(batch) * max(map(len, batch))) for step in batches for batch in step]
    tokens, positions = map(sum, zip(*rows))
    return tokens / positions


def _cut(examples: Examples, size: int) -> list[Examples]:
    return [examples[i : i + size] for i in range(0, len(examples), size)]


def padded(examples: Examples, *, rows: int, columns: int, left: bool) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Tokens [rows, columns] with zeros where an example does not reach, and where it does."""
    tokens, mask = np.zeros((rows, columns), np.int32), np.zeros((rows, columns), bool)
    for i, example in enumerate(examples):
        part = slice(columns - len(example), columns) if left else slice(len(example))
        tokens[i, part], mask[i, part] = example, True
    return tokens, mask
