"""The cells of one split of a corpus, at random."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.corpus_format import ADVICE, CorpusError
from c2s_jax.data.ragged import offsets

_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # for random access
_BLOCK_CELLS = 1024
_OPEN_SHARDS = 256  # a process may often have no more than 1024 files open


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

    def matrix(self, n_genes: int) -> sparse.csr_matrix:
        """Expression as cells × genes of the corpus, float32 [C, n_genes]; genes of a cell stay in their order."""
        values = (self.expression.astype(np.float32), self.genes, self.indptr)
        return sparse.csr_matrix(values, (len(self), n_genes))


class CellSource:
    """Random access to the cells of one split; picklable, files are opened on first use."""

    def __init__(self, folder: Path, split: str, shard_lengths: Sequence[int]) -> None:
        self.split = split
        self._folder = folder
        self._paths = [folder / fmt.shard_name(split, i, len(shard_lengths)) for i in range(len(shard_lengths))]
        self._starts = np.concatenate([[0], np.cumsum(shard_lengths, dtype=np.int64)])
        self._readers: OrderedDict[int, Any] = OrderedDict()  # by shard, the last used at the end
        self._lock = Lock()
        self._columns: dict[str, NDArray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("split", "_folder", "_paths", "_starts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_readers": OrderedDict(), "_lock": Lock(), "_columns": {}}

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
        genes, expression = [], []
        for record in self._records(np.asarray(indices, dtype=np.int64).reshape(-1)):
            values = _features(record)
            genes.append(_bytes(values, "genes"))
            expression.append(_bytes(values, "expression"))
        lengths = np.fromiter(map(len, genes), dtype=np.int64, count=len(genes)) // 4
        return CellBlock(
            indptr=offsets(lengths),
            genes=np.frombuffer(b"".join(genes), dtype="<i4"),
            expression=np.frombuffer(b"".join(expression), dtype="<f2"),
        )

    def cell_ids(self, indices: ArrayLike | None = None) -> NDArray[np.str_]:
        """Names of the cells `indices` (all, if None), str [C]."""
        which = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64).reshape(-1)
        blocks = (which[i : i + _BLOCK_CELLS] for i in range(0, len(which), _BLOCK_CELLS))
        records = (record for block in blocks for record in self._records(block))
        return np.array([_bytes(_features(record), "cell_id").decode() for record in records], dtype=np.str_)

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
        return self._column(f"{name}.codes"), self._column(f"{name}.values")

    @property
    def n_genes(self) -> NDArray[np.int32]:
        """Number of genes of every cell, int32 [len(self)], without reading records."""
        return self._column("n_genes")

    @property
    def dataset_ids(self) -> NDArray[np.int32]:
        """Index into `Corpus.datasets` of every cell, int32 [len(self)]."""
        return self._column("dataset")

    @cached_property
    def groups(self) -> NDArray[np.int32]:
        """Group (donor × tissue × data set) of every cell, int32 [len(self)]; splits share ids."""
        return np.load(self._folder / fmt.groups_name(self.split), allow_pickle=False)

    @cached_property
    def neighbours(self) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
        """Cells near each cell in space: `indptr`, int64 [len(self)+1], and record numbers of this split, int32 [N].

        The neighbours of cell ``i`` are ``indices[indptr[i]:indptr[i + 1]]``, by rising number, without the cell
        itself; their data set says the radius. None if no data set of the corpus has one.
        """
        path = self._folder / fmt.neighbours_name(self.split)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as data:
            return data["indptr"], data["indices"]

    def _column(self, name: str) -> NDArray:
        if name not in self._columns:
            with np.load(self._folder / fmt.fields_name(self.split), allow_pickle=False) as data:
                self._columns[name] = data[name]
        return self._columns[name]

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
            raise CorpusError(f"{path} cannot be read: {error}. {ADVICE}") from error

    def _reader(self, shard: int) -> Any:
        with self._lock:  # reader threads share this object
            if shard not in self._readers:
                self._readers[shard] = self._open(shard)
                if len(self._readers) > _OPEN_SHARDS:
                    self._readers.popitem(last=False)
            self._readers.move_to_end(shard)
            return self._readers[shard]

    def _open(self, shard: int) -> Any:
        from array_record.python import array_record_module

        path = self._paths[shard]
        try:
            reader = array_record_module.ArrayRecordReader(str(path), _READER_OPTIONS)
            found = reader.num_records() if reader.ok() else 0
        except RuntimeError as error:
            raise CorpusError(f"{path} cannot be read: {error}. {ADVICE}") from error
        expected = int(self._starts[shard + 1] - self._starts[shard])
        if found != expected:
            raise CorpusError(f"{path} is damaged: {found} of {expected} records can be read. {ADVICE}")
        return reader


def _features(record: bytes) -> Any:
    # Imported late: importing TFDS costs a good part of a second.
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def _bytes(values: Any, name: str) -> bytes:
    return values[name].bytes_list.value[0]
