"""Folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the name ``path`` when the block ends without an error.

    A killed process leaves ``<path>.partial``, which the next one with the same target replaces.

    Raises
    ------
    FileExistsError
        When ``path`` is a file or a folder that holds something.
    RuntimeError
        With more than one JAX process: one of them alone should write.
    """
    path = Path(path)
    if jax.process_count() > 1:
        raise RuntimeError(f"{path} is to be written by one process; convert checkpoints on one machine")
    refuse_existing(path)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def refuse_existing(path: str | Path) -> None:
    """Raise FileExistsError unless ``new_folder`` may make ``path``."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; name a new folder, or remove it first")
