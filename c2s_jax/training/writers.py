"""Metric writers: JSON lines, TensorBoard and Weights & Biases; and the progress line."""

import json
import os
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

COLUMNS = 80


class MetricWriter:
    """Writes scalars to ``metrics.jsonl``, to TensorBoard event files and, if wished, to W&B; only process 0 writes.

    Parameters
    ----------
    workdir
        Folder of the run.
    start_step
        Lines of later steps, left by a killed run past its last checkpoint, are dropped.
    wandb
        ``config.wandb``; with a ``project``, metrics also go there.
    config
        The run's configuration, for W&B.

    Raises
    ------
    ValueError
        W&B is wished for and not installed.
    """

    def __init__(
        self,
        workdir: str,
        start_step: int = 0,
        *,
        wandb: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        self._file, self._board, self._run = None, None, None
        if jax.process_index():
            return
        if wandb and wandb["project"]:
            self._run = _wandb_run(workdir, wandb, config)
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
        if self._run is not None:
            self._run.log({"step": step, **scalars})

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()
        if self._run is not None:
            self._run.finish()


def _wandb_run(workdir: str, settings: Mapping[str, str], config: Mapping[str, Any] | None) -> Any:
    """The run at W&B; the same one when the workdir's run goes on."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            f"wandb.project={settings['project']!r} is set, but wandb cannot be imported ({error}): "
            "pip install wandb, or leave wandb.project empty"
        ) from error
    path = os.path.join(workdir, "wandb_id")
    if not os.path.exists(path):
        with open(path + ".tmp", "w") as f:
            f.write(uuid.uuid4().hex[:8])
        os.replace(path + ".tmp", path)
    with open(path) as f:
        identity = f.read()
    run = wandb.init(
        project=settings["project"],
        entity=settings["entity"] or None,
        name=settings["name"] or None,
        id=identity,
        resume="allow",
        dir=workdir,
        config=dict(config or {}),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")  # W&B's own counter cannot go back to a checkpoint
    return run


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
    """Steps done, time, time left and what ``progress_figures`` says, in 80 columns, on process 0."""
    return tqdm(
        total=total,
        initial=start,
        ncols=COLUMNS,
        bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        disable=bool(jax.process_index()),
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
    )


def progress_figures(scalars: Mapping[str, float]) -> str:
    """Loss, seconds a step, tokens a second (and MFU) in at most 32 characters."""
    figures = [f"loss {scalars['train/loss']:.4g}"]
    if "train/step_seconds" in scalars:
        speed = tqdm.format_sizeof(scalars["train/tokens_per_second"])
        figures += [f"{scalars['train/step_seconds']:.3g}s", f"{speed}tok/s"]
    if "train/mfu" in scalars:
        figures.append(f"MFU {scalars['train/mfu']:.0%}")
    return " ".join(figures)
