"""Reads names, attributes and texts of an HDF5 file, in a process of its own: see `data_pipeline.readers.hdf5`.

    python hdf5_walk.py FILE SECONDS

Prints the name of each object before it reads it. A signal ends the process if one of them takes more than SECONDS,
and more for long lists of texts.
"""

import signal
import sys
from contextlib import suppress
from typing import Any

import h5py  # type: ignore[import-untyped]

_BLOCK = 1_000_000
_SECONDS_A_TEXT = 1e-4


def walk(path: str, seconds: int) -> None:
    """Read everything whose length is stored beside it, which is where HDF5 trusts the file."""

    def visit(name: str, item: Any) -> None:
        size = getattr(item, "size", None) or 0
        signal.alarm(seconds + int(size * _SECONDS_A_TEXT))
        print(name, flush=True)
        with suppress(Exception):  # what raises here will raise again, with a message
            dict(item.attrs)
            if not isinstance(item, h5py.Dataset) or not size:
                return
            is_text = len(item.shape) == 1 and item.dtype.kind in "OSV"
            for start in range(0, size if is_text else 1, _BLOCK):
                item[start : start + (_BLOCK if is_text else 1)]

    with suppress(Exception), h5py.File(path, "r") as file:
        visit("/", file)
        file.visititems(visit)


if __name__ == "__main__":
    walk(sys.argv[1], int(sys.argv[2]))
