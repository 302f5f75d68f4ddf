"""What a run keeps in its folder besides checkpoints: its configuration, data made for it, times."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import jax

from c2s_jax import config as configs
from c2s_jax.models.hub import local_folder

# Keys that may change between runs in one workdir: they touch what is learned by no more than rounding. (What a scale
# sets is in the other keys; with dropout, see ``_free``.)
FREE = (
    "workdir",
    "notes",
    "scale",
    "small",
    "log_every",
    "validate_every",
    "validation_rows",
    "checkpoint.",
    "evaluation.",
    "data.threads",
    "distributed.",
    "mesh.",
    "accumulate",
    "model.remat",
    "model.mlp_chunks",
    "guards.nonfinite",
    "guards.spike",
    "guards.max_rewinds",
    "transfer_guard",
    "watchdog.",
    "profile.",
    "wandb.",
)


def resolve(flag: str | None, config: Any) -> str:
    """The run's folder: ``--workdir``, else the configuration's, else ``runs/<name>``."""
    workdir = flag or config.workdir or os.path.join("runs", config.name)
    if "://" in workdir:
        raise ValueError(
            f"workdir={workdir}: a bucket has to be mounted as a folder (on Google Cloud with Cloud Storage FUSE, "
            "gcsfuse); give the folder"
        )
    return workdir


@contextlib.contextmanager
def alone(workdir: str) -> Iterator[None]:
    """Keep other processes on this machine from training in ``workdir``: two would write over each other's files.

    Raises
    ------
    ValueError
        When one does already.
    """
    if jax.process_index():
        yield
        return
    os.makedirs(workdir, exist_ok=True)
    with open(os.path.join(workdir, ".lock"), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel drops it however the process ends
        except BlockingIOError:
            raise ValueError(f"{workdir}: another process trains there; end it, or give another --workdir") from None
        except OSError:  # not every mounted bucket has locks
            pass
        try:
            yield
        finally:
            if os.listdir(workdir) == [".lock"]:  # a run that was refused leaves nothing
                shutil.rmtree(workdir)


def claim(workdir: str, config: dict[str, Any]) -> None:
    """Make ``workdir`` this run's, or check that it is already.

    Raises
    ------
    ValueError
        When another configuration was trained there; lists the keys that differ.
    """
    path = os.path.join(workdir, "config.json")
    if os.path.exists(path) and _steps(workdir):
        with open(path) as f:
            changed = [d for d in configs.differences(json.load(f), config) if not d.startswith(_free(config))]
        if changed:
            raise ValueError(
                f"{workdir} holds a run with another configuration ({path}):\n  "
                + "\n  ".join(changed)
                + "\nGive this one its own --workdir, or restore the old values to go on with that run."
            )
    if not jax.process_index():
        os.makedirs(workdir, exist_ok=True)
        write_json(path, config)


def _free(config: dict[str, Any]) -> tuple[str, ...]:
    """``FREE``, less what decides which numbers dropout drops: parts of a batch and of a map have keys of their own."""
    bound = []
    if config["model"]["dropout"] or config["lora"]["dropout"]:
        bound.append("accumulate")
    if config["lora"]["dropout"]:
        bound.append("model.mlp_chunks")
    return tuple(key for key in FREE if key not in bound)


def first_start(workdir: str) -> float:
    """Unix time at which the run was started first."""
    path = os.path.join(workdir, "began.json")
    if not os.path.exists(path):
        if jax.process_index():
            return time.time()  # the figures are process 0's
        write_json(path, {"unix": time.time()})
    with open(path) as f:
        return json.load(f)["unix"]


def _steps(workdir: str) -> list[str]:
    """Checkpoints in ``workdir``; without one, nothing would be lost by another configuration."""
    folder = os.path.join(workdir, "checkpoints")
    return [name for name in os.listdir(folder) if name.isdigit()] if os.path.isdir(folder) else []


def data_paths(config: Any, workdir: str) -> tuple[str, str]:
    """Corpus folder and tokenizer; a bundled data set is built in ``workdir`` on first use.

    The tokenizer is ``data.tokenizer``, or else that beside the weights of ``init_from``.
    """
    tokenizer = config.data.tokenizer or (_tokenizer_beside(config.init_from) if config.init_from else "")
    if config.data.bundled and config.data.corpus:
        raise ValueError(
            f"data.bundled={config.data.bundled!r} and data.corpus={config.data.corpus!r} are both set: to use the "
            "corpus, add --config.data.bundled="
        )
    if config.data.bundled:
        from data_pipeline import bundled

        corpus, trained = bundled.prepare(config.data.bundled, workdir)
        return corpus, str(tokenizer or trained)
    if not config.data.corpus:
        raise ValueError("data.corpus is empty: give its path (see docs/data.md), or set data.bundled")
    if not tokenizer:
        raise ValueError("data.tokenizer is empty: give its path (see docs/data.md), or weights in init_from")
    return config.data.corpus, str(tokenizer)


def is_run(folder: str) -> bool:
    """Whether a folder is the workdir of a run."""
    return os.path.isdir(os.path.join(folder, "checkpoints"))


def _tokenizer_beside(weights: str) -> str:
    if not is_run(weights):
        return str(local_folder(weights))
    with open(os.path.join(weights, "config.json")) as f:
        run = configs.ConfigDict(json.load(f))
    return data_paths(run, weights)[1]


def check_tokenizer(meta: dict[str, Any], tokenizer: Any) -> None:
    """Refuse to go on with a tokenizer other than the checkpoint's."""
    if meta["tokenizer"] != tokenizer.fingerprint:
        raise ValueError(
            f"the checkpoint was trained with tokenizer {meta['tokenizer'][:12]}…, this one is "
            f"{tokenizer.fingerprint[:12]}…; restore the old data.tokenizer or use another --workdir"
        )


def versions() -> dict[str, str]:
    """Versions of what computes."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "scanpy", "c2s_jax")
    found = {n: importlib.metadata.version(n) for n in names}
    return {**found, "device": jax.devices()[0].device_kind}


def add_seconds(workdir: str, stage: str, seconds: float) -> dict[str, float]:
    """Add to the time spent on a stage, over all runs in ``workdir``; returns all stages."""
    path = os.path.join(workdir, "seconds.json")
    spent: dict[str, float] = {}
    if os.path.exists(path):
        with open(path) as f:
            spent = json.load(f)
    spent[stage] = round(spent.get(stage, 0.0) + seconds, 1)
    if not jax.process_index():
        write_json(path, spent)
    return spent


def say(text: str) -> None:
    """Print one line of progress, from process 0."""
    if not jax.process_index():
        print(text, flush=True)


def write_json(path: str, content: Any) -> None:
    """Write whole or not at all."""
    with open(path + ".tmp", "w") as f:
        json.dump(content, f, indent=2)
        f.write("\n")
    os.replace(path + ".tmp", path)
