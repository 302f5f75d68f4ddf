"""What suites have found so far, in files: an evaluation that was cut off goes on after its last whole suite."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


class Store:
    """A folder with one JSON file a suite, which the first of several processes writes and all read.

    Parameters
    ----------
    folder
        Made when the first suite is whole.
    key
        What answers depend on (settings, weights, cells), as JSON values. A file of another key is made anew.
    """

    def __init__(self, folder: str | Path, key: dict[str, Any]):
        self.folder, self.key = Path(folder), json.loads(json.dumps(key))

    def __call__(self, suite: str, make: Callable[[], Any]) -> Any:
        """The suite's JSON value: from its file, or made and then kept."""
        path = self.folder / f"{suite}.json"
        kept = self._read(path)
        if multihost_utils.broadcast_one_to_all(kept is not None):
            if kept is None:
                raise ValueError(f"{path}: this process cannot read what the first one does; all need the same workdir")
            return kept["found"]
        found = json.loads(json.dumps(make(), default=_plain))
        if not jax.process_index():
            self.folder.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".json.new")
            new.write_text(json.dumps({"key": self.key, "found": found}))
            os.replace(new, path)
        return found

    def _read(self, path: Path) -> dict[str, Any] | None:
        """A file with this key; None if it is absent or not ours."""
        try:
            kept = json.loads(path.read_text())
            return kept if kept["key"] == self.key and "found" in kept else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def weights_fingerprint(params: Any) -> str:
    """A digest of a model's weights, by sums; weights sharded another way may have another one."""
    sums = [np.asarray(_sums(leaf), np.float32) for leaf in jax.tree.leaves(params)]
    return hashlib.sha256(b"".join(x.tobytes() for x in sums)).hexdigest()[:16]


@jax.jit
def _sums(leaf: jax.Array) -> jax.Array:
    values = leaf.astype(jnp.float32)
    return jnp.stack([values.sum(), jnp.abs(values).sum(), (values**2).sum()])


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")
