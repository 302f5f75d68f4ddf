"""Tensors from files of ``torch.save``, without torch and without running anything in them.

A file of torch is a pickle, and a pickle can call any function. Here it may name a few kinds of storage and the
functions that put a tensor together, which stand for descriptions of tensors and call nothing; whatever else it names
is refused. (``torch.load(weights_only=True)`` draws the line in the same place.)
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
}
OLD_MAGIC, OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Kind(NamedTuple):
    dtype: np.dtype


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Named:
    """What stands for a class or function that a pickle names; it cannot be changed."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"it sets {name} of something that is no dictionary")


class _Dict(dict):
    """An OrderedDict; torch hangs versions on it, which are not read."""

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("it describes a tensor by other things than a storage and whole numbers")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if 0 not in shape else -1
    if last >= storage.size or math.prod(shape) > max(storage.size, 1):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(shape)} does not lie within its {storage.size} numbers")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Named(lambda *_: _Dict()),
    ("torch._utils", "_rebuild_tensor_v2"): _Named(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Named(lambda tensor, *_: tensor),
    **{("torch", name): _Kind(np.dtype(kind)) for name, kind in STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Reads only what ``GLOBALS`` names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in GLOBALS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not part of a tensor")
        return GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        what, kind, key, _, size, *view = pid
        if what != "storage" or not isinstance(kind, _Kind) or type(size) is not int or any(view):
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage of numbers")
        return _Storage(str(key), kind.dtype, size)


def read_torch(path: str | Path) -> dict[str, NDArray]:
    """The tensors of a state dictionary that ``torch.save`` wrote, in today's format or that of torch before 1.6.

    Parameters
    ----------
    path
        File, e.g. ``best_model.pt`` or ``pytorch_model.bin``. Its numbers are held in memory.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is damaged, is no dictionary of tensors, or names anything that tensors are not made of.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_old(path)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not read: {error}. Save the tensors alone, as safetensors") from None
    # A damaged pickle raises whatever the step that meets the damage does.
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or no file of torch.save: {error!r}"
        ) from None


def _read_zip(path: Path) -> dict[str, NDArray]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        index = next((name for name in names if name.endswith("/data.pkl")), "data.pkl")
        folder = index.removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        if order.strip() != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        with archive.open(index) as file:
            tensors = _Unpickler(file).load()

        @lru_cache(maxsize=1)  # tensors that share a storage follow each other
        def read(storage: _Storage) -> NDArray:
            return _numbers(archive.read(f"{folder}data/{storage.key}"), storage)

        return _arrays(tensors, read)


def _read_old(path: Path) -> dict[str, NDArray]:
    """Pickles one after the other (a number, a version, the machine, tensors, keys), then each storage and its size."""
    with path.open("rb") as file:
        if [_load(file), _load(file)] != [OLD_MAGIC, OLD_PROTOCOL] or not _load(file)["little_endian"]:
            raise pickle.UnpicklingError("it is no file of torch.save")
        tensors, keys = _load(file), _load(file)
        stored = {}
        sizes = {t.storage.key: t.storage for t in tensors.values() if isinstance(t, _Tensor)}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            storage = sizes[str(key)]
            if count != storage.size:
                raise pickle.UnpicklingError(f"storage {key} holds {count} numbers, not {storage.size}")
            stored[storage.key] = _numbers(file.read(count * storage.dtype.itemsize), storage)
        return _arrays(tensors, lambda storage: stored[storage.key])


def _load(file: BinaryIO) -> Any:
    return _Unpickler(file).load()


def _numbers(content: bytes, storage: _Storage) -> NDArray:
    if len(content) != storage.size * storage.dtype.itemsize:
        raise pickle.UnpicklingError(
            f"storage {storage.key} is cut off: {len(content):,} bytes for {storage.size:,} numbers"
        )
    return np.frombuffer(content, storage.dtype)


def _arrays(tensors: Any, read: Callable[[_Storage], NDArray]) -> dict[str, NDArray]:
    if not isinstance(tensors, dict):
        raise pickle.UnpicklingError(f"it holds no dictionary of tensors but a {type(tensors).__name__}")
    if others := [repr(name) for name, tensor in tensors.items() if not isinstance(tensor, _Tensor)]:
        raise pickle.UnpicklingError(f"it holds other things than tensors ({', '.join(others[:3])})")
    arrays = {}
    for name, t in tensors.items():
        numbers = read(t.storage)[t.offset :]
        strides = tuple(step * numbers.itemsize for step in t.strides)
        arrays[str(name)] = np.lib.stride_tricks.as_strided(numbers, t.shape, strides, writeable=False)
    return arrays
