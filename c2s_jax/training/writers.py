"""Metric writers: JSON lines and TensorBoard, and the progress bar."""

import json
import os
from collections.abc import Mapping

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm


class MetricWriter:
    """Writes scalars to ``metrics.jsonl`` and to TensorBoard event files; only process 0 writes.

    Parameters
    ----------
    workdir
        Folder of the run.
    start_step
        Lines of later steps, left by a killed run past its last checkpoint, are dropped.
    """

    def __init__(self, workdir: str, start_step: int = 0):
        self._file, self._board = None, None
        if jax.process_index():
            return
        path = os.path.join(workdir, "metrics.jsonl")
        kept = [line for line in read_metrics(path) if line["step"] <= start_step]
        with open(path + ".tmp", "w") as f:
            f.writelines(json.dumps(line) + "\n" for line in kept)
        os.replace(path + ".tmp", path)
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (closed by close())
        self._board = SummaryWriter(os.path.join(workdir, "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one line ``{"step": step, **scalars}``."""
        if self._file is None or self._board is None:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()


def read_metrics(path: str) -> list[dict[str, float]]:
    """Lines of a ``metrics.jsonl``; a torn last line (killed run) is left out."""
    if not os.path.exists(path):
        return []
    lines = []
    with open(path) as f:
        for number, line in enumerate(f, 1):
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                if line.endswith("\n"):
                    raise ValueError(f"{path}, line {number} is not JSON ({error}); remove the line") from error
    return lines


def progress_bar(total: int, start: int) -> tqdm:
    """Bar over steps with rate and ETA, on process 0."""
    return tqdm(
        total=total,
        initial=start,
        desc="train",
        unit="step",
        disable=bool(jax.process_index()),
        mininterval=0.5,
    )
