"""Reader of a corpus on disk (written by `data_pipeline.build`)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2s_jax.cells.vocabulary import GeneVocabulary
from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.corpus_format import CorpusError

_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # for random access


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    genes : int32 [N]
        Corpus gene ids by falling expression.
    expression : float16 [N]
        log10(1 + normalised expression), in the same order.
    fields : dict of str
        Metadata; "" where unknown.
    dataset : int
        Index into `Corpus.datasets`.
    cell_id : str
        The cell's name in its data set.
    coordinates : float32 [D]
        Position in space; empty if there is none.
    """

    genes: NDArray[np.int32]
    expression: NDArray[np.float16]
    fields: dict[str, str]
    dataset: int
    cell_id: str
    coordinates: NDArray[np.float32]


@dataclass(frozen=True)
class CellBlock:
    """Genes and expression of many cells as ragged arrays.

    Attributes
    ----------
    indptr : int64 [C+1]
        Cell ``i`` of the block holds entries ``indptr[i]:indptr[i + 1]``.
    genes : int32 [N]
    expression : float16 [N]
    """

    indptr: NDArray[np.int64]
    genes: NDArray[np.int32]
    expression: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.indptr) - 1


class Corpus:
    """A corpus directory.

    Opening reads the manifest and compares every file's size with it; records are read on demand.

    Parameters
    ----------
    path : path-like

    Attributes
    ----------
    splits : tuple of str
    genes : GeneVocabulary
    datasets : list of dict
        One a data set: name, organism, rank→expression parameters, provenance …

    Raises
    ------
    FileNotFoundError
        If there is no such directory.
    CorpusError
        If it is no finished corpus, has another format version, or a file is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        _check_files(self.path, self.manifest["files"])
        self.splits: tuple[str, ...] = tuple(self.manifest["shards"])

    @cached_property
    def genes(self) -> GeneVocabulary:
        return GeneVocabulary.load(self.path / fmt.GENES_FILE)

    @cached_property
    def datasets(self) -> list[dict[str, Any]]:
        text = (self.path / fmt.DATASETS_FILE).read_text("utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def cells(self, split: str) -> "CellSource":
        """The cells of one split.

        Raises
        ------
        KeyError
            If there is no such split.
        """
        if split not in self.splits:
            raise KeyError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")
        return CellSource(self.path, split, self.manifest["shards"][split])

    def __repr__(self) -> str:
        records = ", ".join(f"{name} {n}" for name, n in self.manifest["records"].items())
        return f"Corpus({str(self.path)!r}: {records} cells)"


class CellSource:
    """Random access to the cells of one split; picklable, files are opened on first use."""

    def __init__(self, folder: Path, split: str, shard_lengths: Sequence[int]) -> None:
        self.split = split
        self._folder = folder
        self._paths = [folder / fmt.shard_name(split, i, len(shard_lengths)) for i in range(len(shard_lengths))]
        self._starts = np.concatenate([[0], np.cumsum(shard_lengths, dtype=np.int64)])
        self._readers: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        kept = ("split", "_folder", "_paths", "_starts")
        return {name: self.__dict__[name] for name in kept} | {"_readers": {}}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Cell]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Cell:
        index = range(len(self))[index]
        values = _features(self._records(np.array([index]))[0])
        return Cell(
            genes=np.frombuffer(_bytes(values, "genes"), dtype="<i4"),
            expression=np.frombuffer(_bytes(values, "expression"), dtype="<f2"),
            fields={name: _bytes(values, name).decode() for name in fmt.FIELDS},
            dataset=int(values["dataset"].int64_list.value[0]),
            cell_id=_bytes(values, "cell_id").decode(),
            coordinates=np.frombuffer(_bytes(values, "coordinates"), dtype="<f4"),
        )

    def take(self, indices: ArrayLike) -> CellBlock:
        """Genes and expression of many cells in one read, in the order asked for.

        Parameters
        ----------
        indices : int [C]
            Record numbers; repeats are allowed.

        Raises
        ------
        IndexError
            If an index is outside the split.
        """
        values = [_features(record) for record in self._records(np.asarray(indices, dtype=np.int64).reshape(-1))]
        genes = [_bytes(v, "genes") for v in values]
        expression = b"".join(_bytes(v, "expression") for v in values)
        lengths = np.fromiter(map(len, genes), dtype=np.int64, count=len(genes)) // 4
        return CellBlock(
            indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            genes=np.frombuffer(b"".join(genes), dtype="<i4"),
            expression=np.frombuffer(expression, dtype="<f2"),
        )

    def cell_ids(self, indices: ArrayLike | None = None) -> NDArray[np.str_]:
        """Names of the cells `indices` (all, if None), str [C]."""
        which = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64).reshape(-1)
        ids = [_bytes(_features(record), "cell_id").decode() for record in self._records(which)]
        return np.array(ids, dtype=np.str_)

    def fields(self, name: str) -> NDArray[np.str_]:
        """A field of every cell, str [len(self)], without reading records.

        Raises
        ------
        KeyError
            If there is no such field.
        """
        codes, values = self.field_codes(name)
        return values[codes]

    def field_codes(self, name: str) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
        """A field as codes, int32 [len(self)], into its values, str [V]."""
        if name not in fmt.FIELDS:
            raise KeyError(f"cells have no field {name!r}; fields are {', '.join(fmt.FIELDS)}")
        return self._columns[f"{name}.codes"], self._columns[f"{name}.values"]

    @property
    def n_genes(self) -> NDArray[np.int32]:
        """Number of genes of every cell, int32 [len(self)], without reading records."""
        return self._columns["n_genes"]

    @property
    def dataset_ids(self) -> NDArray[np.int32]:
        """Index into `Corpus.datasets` of every cell, int32 [len(self)]."""
        return self._columns["dataset"]

    @cached_property
    def groups(self) -> NDArray[np.int32]:
        """Group (donor × tissue × data set) of every cell, int32 [len(self)]; splits share ids."""
        return np.load(self._folder / fmt.groups_name(self.split), allow_pickle=False)

    @cached_property
    def _columns(self) -> dict[str, NDArray]:
        with np.load(self._folder / fmt.fields_name(self.split), allow_pickle=False) as data:
            return dict(data)

    def _records(self, indices: NDArray[np.int64]) -> list[bytes]:
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            bad = indices[(indices < 0) | (indices >= len(self))][0]
            raise IndexError(f"record {bad} of split {self.split!r}: there are {len(self)} (0 … {len(self) - 1})")
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        records: list[bytes] = [b""] * len(indices)
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            positions = (indices[places] - self._starts[shard]).tolist()
            for place, record in zip(places.tolist(), self._read(shard, positions), strict=True):
                records[place] = record
        return records

    def _read(self, shard: int, positions: list[int]) -> list[bytes]:
        path = self._paths[shard]
        try:
            return self._reader(shard).read(positions)
        except (RuntimeError, IndexError) as error:
            raise CorpusError(f"{path} cannot be read: {error}. {_ADVICE}") from error

    def _reader(self, shard: int) -> Any:
        if shard not in self._readers:
            from array_record.python import array_record_module

            reader = array_record_module.ArrayRecordReader(str(self._paths[shard]), _READER_OPTIONS)
            expected = int(self._starts[shard + 1] - self._starts[shard])
            found = reader.num_records() if reader.ok() else 0
            if found != expected:
                raise CorpusError(
                    f"{self._paths[shard]} is damaged: {found} of {expected} records can be read. {_ADVICE}"
                )
            self._readers[shard] = reader
        return self._readers[shard]


_ADVICE = "Copy the corpus again, or remove its directory and build it anew (python -m data_pipeline.build)."


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no corpus at {folder}: build one with `python -m data_pipeline.build`")
    path = folder / fmt.MANIFEST_FILE
    if not path.is_file():
        raise CorpusError(f"{folder} is not a finished corpus: it has no {fmt.MANIFEST_FILE}. {_ADVICE}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version, shards, files = manifest["version"], manifest["shards"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is damaged ({error!r}). {_ADVICE}") from None
    if str(version).split(".")[0] != fmt.FORMAT_VERSION.split(".")[0]:
        raise CorpusError(
            f"{folder} has corpus format {version}; this version of c2s_jax reads "
            f"{fmt.FORMAT_VERSION}. Build it anew (python -m data_pipeline.build)."
        )
    missing = [
        name
        for split, lengths in shards.items()
        for name in (fmt.shard_name(split, i, len(lengths)) for i in range(len(lengths)))
        if name not in files
    ]
    if missing:
        raise CorpusError(f"{path} does not list {missing[0]}. {_ADVICE}")
    return manifest


def _check_files(folder: Path, sizes: dict[str, int]) -> None:
    for name, expected in sizes.items():
        path = folder / name
        if not path.is_file():
            raise CorpusError(f"{path} is missing ({expected} bytes expected). {_ADVICE}")
        found = path.stat().st_size
        if found != expected:
            raise CorpusError(f"{path} has {found} bytes, {expected} were written. {_ADVICE}")


def _features(record: bytes) -> Any:
    # Imported late: importing TFDS costs a good part of a second.
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def _bytes(values: Any, name: str) -> bytes:
    return values[name].bytes_list.value[0]
