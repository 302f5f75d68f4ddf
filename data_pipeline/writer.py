"""Files that are there whole or not at all: shards of records, arrays, JSON; and errors that name the file."""

import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.corpus import crc32

# One record a group: random access reads nothing else. Level 1 packs records as small as level 3, in 2/3 of the time.
_WRITER_OPTIONS = "group_size:1,zstd:1"


class CorpusExistsError(FileExistsError):
    """The output directory is already there, or another process is making it."""


class CorpusWriteError(OSError):
    """A file of the corpus could not be written; the output directory was not created."""


@dataclass(frozen=True)
class FileFacts:
    """A finished file: its size and checksum, and for shards the number of records and their bytes before packing."""

    bytes: int
    crc32: str
    records: int = 0
    record_bytes: int = 0

    @classmethod
    def of(cls, path: Path, records: int = 0, record_bytes: int = 0) -> "FileFacts":
        """Facts of what is at `path`."""
        return cls(path.stat().st_size, crc32(path), records, record_bytes)

    def hold(self, path: Path) -> bool:
        """Whether `path` is the file described."""
        return path.is_file() and path.stat().st_size == self.bytes and crc32(path) == self.crc32

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `FileFacts(**d)` takes it back."""
        return asdict(self)


class ShardWriter:
    """One shard; it has its name once `close` has returned.

    Parameters
    ----------
    path : Path
    output : Path
        The corpus, for messages.

    Raises
    ------
    CorpusWriteError
        From every method, if the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path, output: Path) -> None:
        from array_record.python import array_record_module

        self._path, self._output = path, output
        self._partial = _partial(path)
        self._records = self._bytes = 0
        self._closed = False
        with naming_errors(path, output):
            self._writer = array_record_module.ArrayRecordWriter(str(self._partial), _WRITER_OPTIONS)

    def write(self, record: bytes) -> None:
        """Append a record."""
        try:
            self._writer.write(record)
        except RuntimeError as error:
            raise _write_error(self._path, self._output, error) from error
        self._records += 1
        self._bytes += len(record)

    def close(self) -> FileFacts:
        """Finish the shard, flush it to disk and give it its name."""
        from array_record.python import array_record_module

        with naming_errors(self._path, self._output):
            self._closed = True
            self._writer.close()
            # The writer works in the background; what can be read back is what was written.
            reader = array_record_module.ArrayRecordReader(str(self._partial))
            readable = reader.num_records() if reader.ok() else 0
            reader.close()
            if readable != self._records:
                raise OSError(errno.EIO, f"{readable} of {self._records} records can be read back", str(self._path))
            sync(self._partial)
            facts = FileFacts.of(self._partial, self._records, self._bytes)
            self._partial.rename(self._path)
        return facts

    def abandon(self) -> None:
        """Close and remove what has no name yet."""
        if not self._closed:
            with suppress(RuntimeError):  # the reason has been raised already
                self._writer.close()
        self._partial.unlink(missing_ok=True)


def write_file(path: Path, output: Path, write: Callable[[Path], Any]) -> FileFacts:
    """Have `write` fill a temporary file, flush it and give it its name."""
    partial = _partial(path)
    try:
        with naming_errors(path, output):
            write(partial)
            sync(partial)
            facts = FileFacts.of(partial)
            partial.rename(path)
            return facts
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    # Where a runner gives a unit to two workers, each writes a file of its own.
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")


def write_json(path: Path, output: Path, value: Any) -> FileFacts:
    """`write_file` with JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return write_file(path, output, lambda p: p.write_text(text, "utf-8"))


def write_arrays(path: Path, output: Path, arrays: Mapping[str, NDArray]) -> FileFacts:
    """`write_file` with an uncompressed ``.npz``."""

    def save(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    return write_file(path, output, save)


def refuse_existing(output: Path) -> None:
    """Raise `CorpusExistsError` if there is anything at `output`."""
    if not os.path.lexists(output):
        return
    if (output / fmt.MANIFEST_FILE).is_file():
        raise CorpusExistsError(
            f"{output} already holds a finished corpus. Use it, remove it, or choose another --output."
        )
    raise CorpusExistsError(f"{output} exists and is not a corpus. Choose a directory that does not exist yet.")


def sync(path: Path) -> None:
    """Flush a file or directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_errors(path: Path, output: Path) -> Iterator[None]:
    """Turn errors of writing into `CorpusWriteError` that names the file."""
    try:
        yield
    except CorpusWriteError:
        raise
    except (OSError, RuntimeError) as error:
        raise _write_error(path, output, error) from error


def _write_error(path: Path, output: Path, error: Exception) -> CorpusWriteError:
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    return CorpusWriteError(
        number,
        f"could not write {path}: {error}. {output} was not created; make room or choose another place, "
        "then run the same command again",
    )
