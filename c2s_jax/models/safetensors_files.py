"""Folders of safetensors files (https://huggingface.co/docs/safetensors), read one tensor or part of it at a time."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class TensorInfo(NamedTuple):
    """What a file's header says of a tensor; ``dtype`` as the format spells it (F32, BF16, ...)."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class SafetensorsFolder:
    """The tensors of a checkpoint: ``model.safetensors``, or shards listed in ``model.safetensors.index.json``.

    Only headers are read at first. Of the files one is open at a time, so tensors are best read in the order of
    ``tensors``.

    Attributes
    ----------
    tensors : dict of str to TensorInfo
        In the order in which they lie on disk.

    Raises
    ------
    FileNotFoundError
        When there are no such files, or a shard of the index is missing.
    ValueError
        When a file or the index cannot be read, or they contradict each other; names the file and the tensor.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._file: Path | None = None
        self._handle: Any = None
        self.tensors: dict[str, TensorInfo] = {}
        index = _weight_map(self.folder)
        for file in dict.fromkeys(index.values()) if index else (SINGLE,):
            self._add(self.folder / file)
        for name, file in index.items():
            found = self.tensors.get(name)
            if found is None or found.file.name != file:
                where = f"; it is in {found.file.name}" if found else ""
                raise ValueError(f"{self.folder / INDEX} lists tensor {name} in {file}, which does not hold it{where}")

    def _add(self, file: Path) -> None:
        handle = self._open(file)
        for name in handle.offset_keys():
            if name in self.tensors:
                raise ValueError(f"tensor {name} is both in {self.tensors[name].file} and in {file.name}")
            part = handle.get_slice(name)
            self.tensors[name] = TensorInfo(file, part.get_dtype(), tuple(part.get_shape()))

    def _open(self, file: Path) -> Any:
        if self._file != file:
            self._file = self._handle = None
            self._handle = _open(file)
            self._file = file
        return self._handle

    def dtype(self, name: str) -> str:
        """Name of a tensor's dtype: float32, bfloat16 or float16; others are refused."""
        info = self.tensors[name]
        if info.dtype not in DTYPES:
            raise ValueError(f"tensor {name} in {info.file} is {info.dtype}; only {', '.join(DTYPES)} are read")
        return DTYPES[info.dtype]

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor of one of these dtypes."""
        return math.prod(self.tensors[name].shape) * (4 if self.dtype(name) == "float32" else 2)

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> NDArray:
        """A tensor, or the part of it that ``index`` (a slice an axis, without steps) selects; nothing else is read."""
        info = self.tensors[name]
        handle = self._open(info.file)
        if index is None or all(s.indices(n) == (0, n, 1) for s, n in zip(index, info.shape)):
            return handle.get_tensor(name)  # a slice would be held twice in memory
        return handle.get_slice(name)[index]


def _weight_map(folder: Path) -> dict[str, str]:
    """File of each tensor; empty for a single file."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if (folder / SINGLE).is_file():
        return {}
    path = folder / INDEX
    if not path.is_file():
        raise _no_weights(folder)
    try:
        index = json.loads(path.read_bytes())["weight_map"]
        shards = sorted(set(index.values()))
        strange = [s for s in shards if Path(s).name != s]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not an index of shards with a weight_map: {error!r}") from None
    if strange:
        raise ValueError(f"{path} names {strange[0]!r}; shards lie in the folder itself")
    if missing := [s for s in shards if not (folder / s).is_file()]:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(shards)} shards that {INDEX} lists: {', '.join(missing[:3])}"
        )
    return {name: index[name] for name in sorted(index, key=index.__getitem__)}


def _no_weights(folder: Path) -> Exception:
    pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
    if pickles:
        return ValueError(
            f"{folder} holds pickled weights only ({', '.join(pickles[:3])}). Reading a pickle can run any code, so "
            "they are not read; convert them to safetensors (in transformers: from_pretrained, then save_pretrained)"
        )
    found = sorted(p.name for p in folder.iterdir())
    return FileNotFoundError(f"no {SINGLE} or {INDEX} in {folder} (it holds {found[:8]})")


def _open(file: Path) -> Any:
    try:
        return safetensors.safe_open(file, framework="numpy")
    except safetensors.SafetensorError as error:
        size = file.stat().st_size
        raise ValueError(f"{file} ({size:,} bytes) is cut off or no safetensors file: {error}") from None


def write_safetensors(
    folder: str | Path, tensors: Iterable[tuple[str, NDArray]], *, max_shard_size: int = 2 * 2**30
) -> None:
    """Write named tensors as ``transformers`` does: one file, or shards and their index.

    Parameters
    ----------
    folder
        Holds no weights yet. File names become those of a checkpoint in the end only, the index last.
    tensors
        Drawn one by one; no more than a shard is held in memory.
    max_shard_size
        Bytes of tensors a shard; a larger tensor gets a shard of its own.
    """
    folder = Path(folder)
    shards: list[dict[str, int]] = []
    pending: dict[str, NDArray] = {}

    def flush() -> None:
        save_file(pending, _temporary(folder, len(shards)), metadata={"format": "pt"})
        shards.append({name: array.nbytes for name, array in pending.items()})
        pending.clear()

    for name, array in tensors:
        if pending and sum(a.nbytes for a in pending.values()) + array.nbytes > max_shard_size:
            flush()
        pending[name] = np.asarray(array, order="C")
    flush()
    _publish(folder, shards)


def _temporary(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.tmp"


def _publish(folder: Path, shards: list[dict[str, int]]) -> None:
    """Give written shards their names."""
    if len(shards) == 1:
        _temporary(folder, 0).rename(folder / SINGLE)
        return
    weight_map = {}
    for number, sizes in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        _temporary(folder, number).rename(folder / name)
        weight_map.update(dict.fromkeys(sizes, name))
    total = sum(sum(sizes.values()) for sizes in shards)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    temporary = folder / (INDEX + ".tmp")
    temporary.write_text(json.dumps(index, indent=2) + "\n")
    temporary.rename(folder / INDEX)
