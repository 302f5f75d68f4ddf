"""A list of a folder's files with size and checksum, by which damage is found that a reader would not notice."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAME = "checksums.json"
UNLISTED = ("_CHECKPOINT_METADATA",)  # Orbax adds the time of the commit after the list is made
THREADS = 8


def write(folder: Path) -> None:
    """List all files of ``folder``, in ``checksums.json`` there; everything is flushed to the disk."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in (NAME, *UNLISTED):
        files.pop(name, None)
    with ThreadPoolExecutor(THREADS) as pool:
        listed = dict(zip(files, pool.map(_flushed, files.values())))
    with open(folder / NAME, "w") as f:
        json.dump(listed, f, indent=1)
        f.flush()
        os.fsync(f.fileno())


def damage(folder: Path, *, process: int = 0, processes: int = 1) -> str | None:
    """What is wrong with the files of ``folder``, by its list; None when nothing is, or when it has no list.

    The files are dealt out to ``processes``, of which this one reads its part.
    """
    try:
        content = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None  # written before there were lists
    try:
        listed = {name: (int(size), str(checksum)) for name, (size, checksum) in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError) as error:
        return f"{NAME} cannot be read ({error})"
    mine = sorted(listed.items())[process::processes]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda item: _difference(folder, *item), mine)
    return next((problem for problem in found if problem), None)


def _difference(folder: Path, name: str, written: tuple[int, str]) -> str | None:
    size, checksum = written
    try:
        found = (folder / name).stat().st_size
        if found != size:
            return f"{name} has {found:,} bytes, {size:,} were written"
        if _checksum(folder / name) != checksum:
            return f"{name} has the right size, but not the bytes that were written"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None


def _flushed(path: Path) -> tuple[int, str]:
    with open(path, "rb") as f:
        os.fsync(f.fileno())
    return path.stat().st_size, _checksum(path)


def _checksum(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
