"""Opening HDF5 files that may be damaged."""

import subprocess
import sys
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import h5py  # type: ignore[import-untyped]

from .errors import ReadError
from .transpose import file_key

# far more than any sound file needs, on any disk
_SECONDS = 120


def open_hdf5(path: Path, scratch: Path | None = None) -> h5py.File:
    """Open a file that another process could read.

    The HDF5 library trusts lengths stored in a file, so that damaged ones make it loop for ever or crash, which
    no exception handler sees. So a process of its own reads names, attributes and texts first.

    Parameters
    ----------
    path
    scratch
        Folder that remembers which files have been read, for other processes.

    Raises
    ------
    OSError
        If it is no HDF5 file.
    ReadError
        If that process did not come to its end.
    """
    key = file_key(path)
    mark = None if scratch is None else scratch / f"read-{sha256(key.encode()).hexdigest()[:24]}"
    if mark is None or not mark.exists():
        _try_out(path, key)
        if mark is not None:
            mark.touch()
    return h5py.File(path, "r")


@lru_cache(maxsize=4096)
def _try_out(path: Path, key: str) -> None:
    script = Path(__file__).with_name("hdf5_walk.py")
    command = [sys.executable, "-P", str(script), str(path), str(_SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode < 0:
        last = done.stdout.splitlines()[-1:] or ["its head"]
        raise ReadError(f"{path} is damaged: the HDF5 library does not come to an end on {last[0]!r}")
