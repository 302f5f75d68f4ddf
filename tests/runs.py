"""Whole runs of ``python -m c2s_jax.train`` in processes of their own, to be watched, signalled and killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PATIENCE = 800.0  # seconds for anything to happen; never the measure of a test

# A run of twelve steps that a process gets through in a second once it is up. Steps are slowed down by C2S_TEST_DELAY,
# so that there is time to kill it between two of them.
CONFIG = """
from ml_collections import ConfigDict
from c2s_jax.config import base, mixture_task

def get_config():
    config = base()
    config.name = "tiny"
    config.update(steps=12, batch_size=8, log_every=1, validate_every=4, validation_rows=8, ema_decay=0.9)
    config.model.update(vocab_size=0, embed_dim=32, ffw_dim=48, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16,
                        query_pre_attn_scalar=16.0, sliding_window=16, attention_chunk=64, dropout=0.1)
    config.optimizer.update(learning_rate=1e-2, warmup_steps=2)
    config.data.update(corpus={corpus!r}, tokenizer={tokenizer!r}, seq_len=64, rows_per_block=16)
    config.data.tasks = ("cell_type_annotation", "cell_type_conditioned_generation")
    config.data.mixture = ConfigDict({{t: mixture_task(t, min_genes=4, max_genes=20) for t in config.data.tasks}})
    config.data.augmentation.update(shuffle_ties=True, gene_dropout=0.2)
    config.checkpoint.update(every=2, keep=2)
    config.distributed.heartbeat_seconds = 30
    return config
"""


class Run:
    """One process of a run, its output going to a file."""

    def __init__(
        self, config: Path, workdir: Path, *arguments: str, devices: int = 1, delay: float = 0.0, log: str = ""
    ):
        self.workdir = workdir
        self.log = workdir.with_name(f"{workdir.name}{log}.{time.monotonic_ns()}.log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_FLAGS", "JAX_NUM", "JAX_PROCESS"))}
        environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "C2S_TEST_DELAY": str(delay)}
        command = [sys.executable, "-m", "tests.runs", f"--config={config}", f"--workdir={workdir}", *arguments]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so; the process must be alive meanwhile."""
        end = time.monotonic() + PATIENCE
        while not ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < end, self.output
            time.sleep(0.02)

    def until_step(self, step: int) -> None:
        self.until(lambda: any(line["step"] >= step for line in lines(self.workdir)))

    def signal(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the end, and return the exit code."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()

    @property
    def output(self) -> str:
        return self.log.read_text()[-6000:]


def start_processes(config: Path, workdir: Path, count: int, *arguments: str, delay: float = 0.0) -> list[Run]:
    """The same run in several processes that meet on this machine."""
    port = free_port()
    common = [f"coordinator=localhost:{port}", f"num_processes={count}"]
    return [
        Run(
            config,
            workdir,
            *(f"--config.distributed.{x}" for x in (*common, f"process_id={i}")),
            *arguments,
            delay=delay,
        )
        for i in range(count)
    ]


def lines(workdir: Path) -> list[dict]:
    """Whole lines of the run's metrics so far."""
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def losses(workdir: Path) -> dict[int, float]:
    return {line["step"]: line["train/loss"] for line in lines(workdir) if "train/loss" in line}


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def last_state(workdir: Path) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint, by item and path, as they lie on disk."""
    import orbax.checkpoint as ocp

    folder = workdir / "checkpoints" / str(saved_steps(workdir)[-1])
    arrays = {}
    for item in ("params", "opt_state"):
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(folder / item)
        arrays |= {f"{item}.{name}": np.asarray(value) for name, value in tree.items()}
    return arrays


def main() -> None:
    """The training command itself, with time to be killed between two steps."""
    from absl import app, flags

    from c2s_jax import train
    from c2s_jax.config import parse_flags

    class Slow(train.Profile):
        def before(self, step: int) -> None:
            time.sleep(float(os.environ["C2S_TEST_DELAY"]))
            super().before(step)

    train.Profile = Slow  # type: ignore[misc]
    flags.mark_flag_as_required("config")
    app.run(train.main, flags_parser=parse_flags)


if __name__ == "__main__":
    main()
