"""Write a corpus so that it either exists whole or not at all.

Everything goes into ``DIR.incomplete-…`` beside the target; every file is flushed to disk, the manifest is
written last, and the directory is renamed to ``DIR`` as the final act. TensorFlow is not needed.
"""

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.vocabulary import GeneVocabulary
from c2s_jax.data import corpus_format as fmt
from data_pipeline import records

_LOCK_FILE = ".lock"
_WRITER_OPTIONS = "group_size:1"  # one record a group: random access reads nothing else
SHARD_BYTES = 256 * 2**20


class CorpusExistsError(FileExistsError):
    """The output directory is already there."""


class CorpusWriteError(OSError):
    """A file of the corpus could not be written; the output directory was not created."""


class CorpusWriter:
    """Context manager that writes one corpus.

    The corpus exists once `finish` has returned; leaving the context without it removes what was written.

    Parameters
    ----------
    output : path-like
        Directory to create.
    splits : sequence of str
    shard_bytes : int
        A shard is closed once it holds this many bytes of records.

    Raises
    ------
    CorpusExistsError
        If `output` exists.
    CorpusWriteError
        If a file cannot be written (disk full, no permission). The message names the file.
    """

    def __init__(
        self, output: str | Path, *, splits: Sequence[str] = fmt.SPLITS, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.output = Path(output).absolute()
        refuse_existing(self.output)
        with naming_errors(self.output.parent, self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.output)
            self._folder = self.output.with_name(f"{self.output.name}.incomplete-{uuid.uuid4().hex[:12]}")
            self._folder.mkdir()
            self._lock = _lock(self._folder)
        self._splits = {split: _SplitWriter(self._folder, split, self.output, shard_bytes) for split in splits}
        self._finished = False

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            for split in self._splits.values():
                split.abandon()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()

    def write(self, split: str, block: records.Block, groups: NDArray[np.int32]) -> None:
        """Append a block of cells to a split.

        Parameters
        ----------
        split : str
        block : records.Block
        groups : int32 [C]
            Group id of each cell.
        """
        self._splits[split].write(block, groups)

    def finish(self, genes: GeneVocabulary, datasets: Sequence[Mapping[str, Any]], description: str) -> None:
        """Write indices, metadata and manifest, and give the corpus its name."""
        shards = {name: split.close() for name, split in self._splits.items()}
        path = self._folder / fmt.GENES_FILE
        with naming_errors(path, self.output):
            genes.save(path)
        path = self._folder / fmt.DATASETS_FILE
        with naming_errors(path, self.output):
            path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in datasets), "utf-8")
        with naming_errors(self._folder / fmt.INFO_FILE, self.output):
            records.write_tfds_metadata(self._folder, self.output, shards, description)
        files = sorted(p for p in self._folder.iterdir() if p.name != _LOCK_FILE)
        for path in files:
            with naming_errors(path, self.output):
                sync(path)
        path = self._folder / fmt.MANIFEST_FILE
        with naming_errors(path, self.output):
            manifest = {
                "format": fmt.DATASET_NAME,
                "version": fmt.FORMAT_VERSION,
                "records": {name: sum(n for n, _ in split) for name, split in shards.items()},
                "shards": {name: [n for n, _ in split] for name, split in shards.items()},
                "files": {p.name: p.stat().st_size for p in files},
            }
            path.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
            sync(path)
            sync(self._folder)
        refuse_existing(self.output)
        self._folder.rename(self.output)
        self._finished = True
        sync(self.output.parent)
        (self.output / _LOCK_FILE).unlink()


class _SplitWriter:
    """Shards, group index and field columns of one split."""

    def __init__(self, folder: Path, split: str, output: Path, shard_bytes: int) -> None:
        self._folder, self._split, self._output, self._shard_bytes = folder, split, output, shard_bytes
        self._shards: list[tuple[int, int]] = []  # records and bytes of each closed shard
        self._writer: Any = None
        self._records = self._bytes = 0
        self._groups: list[NDArray[np.int32]] = []
        self._columns = records.Columns()

    def _path(self, shard: int) -> Path:
        # The number of shards is part of the final name and not known yet.
        return self._folder / f"{self._split}.{shard:05d}.partial"

    def write(self, block: records.Block, groups: NDArray[np.int32]) -> None:
        self._groups.append(np.asarray(groups, dtype=np.int32))
        self._columns.append(block)
        for record in block.serialize():
            if self._writer is None:
                self._open()
            with naming_errors(self._path(len(self._shards)), self._output):
                self._writer.write(record)
            self._records += 1
            self._bytes += len(record)
            if self._bytes >= self._shard_bytes:
                self._close_shard()

    def _open(self) -> None:
        from array_record.python import array_record_module

        path = self._path(len(self._shards))
        with naming_errors(path, self._output):
            self._writer = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)

    def _close_shard(self) -> None:
        from array_record.python import array_record_module

        path = self._path(len(self._shards))
        with naming_errors(path, self._output):
            writer, self._writer = self._writer, None
            writer.close()
            # The writer works in the background; what can be read back is what was written.
            reader = array_record_module.ArrayRecordReader(str(path))
            readable = reader.num_records() if reader.ok() else 0
            reader.close()
            if readable != self._records:
                raise OSError(errno.EIO, f"{readable} of {self._records} records can be read back", str(path))
        self._shards.append((self._records, self._bytes))
        self._records = self._bytes = 0

    def close(self) -> list[tuple[int, int]]:
        """Close the split, write its indices; return records and bytes of each shard."""
        if self._writer is None and not self._shards:
            self._open()  # an empty split still has one (empty) shard
        if self._writer is not None:
            self._close_shard()
        for shard in range(len(self._shards)):
            name = fmt.shard_name(self._split, shard, len(self._shards))
            self._path(shard).rename(self._folder / name)
        path = self._folder / fmt.groups_name(self._split)
        with naming_errors(path, self._output):
            np.save(path, np.concatenate([np.zeros(0, np.int32), *self._groups]))
        path = self._folder / fmt.fields_name(self._split)
        with naming_errors(path, self._output):
            np.savez_compressed(path, allow_pickle=False, **self._columns.arrays())
        return self._shards

    def abandon(self) -> None:
        if self._writer is not None:
            # The reason the corpus is being abandoned has been raised already.
            with suppress(RuntimeError):
                self._writer.close()
            self._writer = None


def refuse_existing(output: Path) -> None:
    """Raise `CorpusExistsError` if there is anything at `output`."""
    if not os.path.lexists(output):
        return
    if (output / fmt.MANIFEST_FILE).is_file():
        raise CorpusExistsError(
            f"{output} already holds a finished corpus. Use it, remove it, or choose another --output."
        )
    raise CorpusExistsError(f"{output} exists and is not a corpus. Choose a directory that does not exist yet.")


def remove_leftovers(output: Path) -> list[Path]:
    """Remove unfinished directories of `output` whose writer is dead; return them."""
    removed = []
    for folder in sorted(output.parent.glob(f"{_escape(output.name)}.incomplete-*")):
        try:
            lock = _lock(folder)
        except BlockingIOError:
            continue  # another process is writing there
        except FileNotFoundError:
            continue  # its writer has just given it its name
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
        removed.append(folder)
    return removed


def _lock(folder: Path) -> IO[str]:
    # The kernel drops the lock when its process ends, however it ends.
    file = open(folder / _LOCK_FILE, "a")  # noqa: SIM115 - held open for the life of the writer
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


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
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        raise CorpusWriteError(
            number,
            f"could not write {path}: {error}. {output} was not created; make room or choose another place, "
            "then run the same command again",
        ) from error
