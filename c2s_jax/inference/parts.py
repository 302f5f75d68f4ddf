"""Results of a long run, kept block by block, so that a run that was stopped goes on where it was."""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Parts:
    """Arrays by key in a folder, one file a block; it counts only if checksums hold and the key is the one asked for.

    Parameters
    ----------
    folder
        Made if need be; None keeps nothing.
    """

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, number: int, key: str) -> dict[str, NDArray] | None:
        """What was saved for a block under this key; None if nothing, or if it is damaged."""
        if self.folder is None:
            return None
        try:
            with np.load(self._path(number), allow_pickle=False) as data:
                found = {name: data[name] for name in data.files}  # reading checks each array's CRC-32
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return found if str(found.pop("key", "")) == key else None

    def save(self, number: int, key: str, arrays: Mapping[str, NDArray]) -> None:
        """Keep a block's result, whole or not at all."""
        if self.folder is None:
            return
        path = self._path(number)
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(file, allow_pickle=False, key=np.array(key), **dict[str, Any](arrays))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:08d}.npz"


def key_of(settings: Mapping[str, Any], arrays: list[NDArray]) -> str:
    """Digest of everything a block's result depends on."""
    state = hashlib.blake2b(json.dumps(dict(settings), sort_keys=True, default=str).encode(), digest_size=16)
    for array in arrays:
        state.update(f"{array.dtype}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
