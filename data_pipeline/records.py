"""Cells as TFDS records, their fields as columns, and the metadata files that let TFDS open them."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.data import corpus_format as fmt

_ARRAYS = ("cell_id", "coordinates", "dataset", "expression", "genes")
# Map entries of a record stand in the order of their keys, so that equal cells give equal bytes.
_KEYS = sorted((*fmt.FIELDS, *_ARRAYS))


@dataclass(frozen=True)
class Block:
    """Some cells of one data set.

    Attributes
    ----------
    dataset : int
        Line of the data set in ``datasets.jsonl``.
    cell_ids : sequence of str [C]
    indptr : int64 [C+1]
        Cell ``i`` holds entries ``indptr[i]:indptr[i + 1]`` of `genes` and `expression`.
    genes : int32 [N]
        Corpus gene ids in rank order.
    expression : float16 [N]
        log10(1 + normalised expression), in the same order.
    fields : dict of field to str [C]
        Missing fields are "".
    coordinates : float32 [C, D], optional
        Positions in space, in the data set's own unit.
    """

    dataset: int
    cell_ids: Sequence[str]
    indptr: NDArray[np.int64]
    genes: NDArray[np.int32]
    expression: NDArray[np.float16]
    fields: Mapping[str, NDArray]
    coordinates: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.cell_ids)

    def serialize(self) -> Iterator[bytes]:
        """Serialised `tf.train.Example`s, as `features().serialize_example` makes them.

        Protobuf's own classes take many times as long. The text fields between two arrays are put together
        once for each combination of their values.
        """
        genes, expression = (memoryview(x.tobytes()) for x in (self.genes.astype("<i4"), self.expression.astype("<f2")))
        places = [b""] * len(self)
        if self.coordinates is not None:
            places = [place.tobytes() for place in self.coordinates.astype("<f4")]
        number = _entry("dataset", _number(self.dataset))
        gaps = self._texts()
        bounds = self.indptr.tolist()
        for i, (cell_id, place) in enumerate(zip(self.cell_ids, places, strict=True)):
            name = str(cell_id).encode()
            start, stop = bounds[i], bounds[i + 1]
            features = (
                *(gaps[0][i], _head("cell_id", len(name)), name),
                *(gaps[1][i], _head("coordinates", len(place)), place),
                *(gaps[2][i], number),
                *(gaps[3][i], _head("expression", 2 * (stop - start)), expression[2 * start : 2 * stop]),
                *(gaps[4][i], _head("genes", 4 * (stop - start)), genes[4 * start : 4 * stop]),
                gaps[5][i],
            )
            yield b"".join((_tag(1, sum(map(len, features))), *features))

    def _texts(self) -> list[list[bytes]]:
        """For the gaps before, between and after the arrays, the text fields of each cell."""
        places = [-1, *(_KEYS.index(name) for name in _ARRAYS), len(_KEYS)]
        return [self._gap(_KEYS[a + 1 : b]) for a, b in zip(places[:-1], places[1:], strict=True)]

    def _gap(self, names: Sequence[str]) -> list[bytes]:
        combined, pieces = np.zeros(len(self), np.int64), [b""]
        for name in names:
            values = self.fields.get(name)
            codes, unique = pd.factorize(np.full(len(self), "") if values is None else values)
            entries = [_text(name, str(value)) for value in unique]
            pairs, combined = np.unique(combined * len(entries) + codes, return_inverse=True)
            pieces = [pieces[pair // len(entries)] + entries[pair % len(entries)] for pair in pairs.tolist()]
        return [pieces[i] for i in combined.tolist()]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _tag(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of field `number` of a protobuf message, of a length-delimited type."""
    return bytes((number << 3 | 2,)) + _varint(size)


def _number(value: int) -> bytes:
    """A `tf.train.Feature` with one whole number not below 0."""
    packed = _varint(value)
    values = _tag(1, len(packed)) + packed
    return _tag(3, len(values)) + values


def _entry(key: str, feature: bytes) -> bytes:
    """An entry of the map in `tf.train.Features`."""
    name = key.encode()
    content = _tag(1, len(name)) + name + _tag(2, len(feature)) + feature
    return _tag(1, len(content)) + content


@lru_cache(maxsize=1 << 16)
def _head(key: str, size: int) -> bytes:
    """The entry of a byte string, without its `size` bytes at the end."""
    value = _tag(1, size)
    values = _tag(1, len(value) + size) + value
    name = _tag(1, len(key)) + key.encode() + _tag(2, len(values) + size) + values
    return _tag(1, len(name) + size) + name


def _text(key: str, value: str) -> bytes:
    content = value.encode()
    return _head(key, len(content)) + content


@dataclass(frozen=True)
class Codes:
    """A text field of some cells: `values[codes]`."""

    codes: NDArray[np.unsignedinteger]
    values: NDArray[np.str_]

    @classmethod
    def of(cls, texts: NDArray) -> "Codes":
        """Of object [C]; the codes take as few bytes as they can."""
        codes, values = pd.factorize(texts, sort=True)
        return cls(codes.astype(np.min_scalar_type(max(0, len(values) - 1))), np.array(values, dtype=np.str_))

    def __getitem__(self, cells: NDArray) -> "Codes":
        return Codes(self.codes[cells], self.values)


@dataclass
class Columns:
    """A split's fields as columns of codes, grown data set by data set."""

    _codes: dict[str, list[NDArray]] = field(default_factory=lambda: {f: [] for f in fmt.FIELDS})
    _values: dict[str, dict[str, int]] = field(default_factory=lambda: {f: {} for f in fmt.FIELDS})
    _datasets: list[tuple[int, int]] = field(default_factory=list)
    _n_genes: list[NDArray[np.int32]] = field(default_factory=list)

    def append(self, dataset: int, n_genes: NDArray[np.int32], fields: Mapping[str, Codes]) -> None:
        """Add the cells of one data set."""
        self._datasets.append((dataset, len(n_genes)))
        self._n_genes.append(n_genes.astype(np.int32))
        for name in fmt.FIELDS:
            column = fields.get(name, Codes(np.zeros(len(n_genes), np.uint8), np.array([""])))
            there, codes = np.unique(column.codes, return_inverse=True)
            known = self._values[name]
            translate = np.array([known.setdefault(str(column.values[c]), len(known)) for c in there], dtype=np.int64)
            self._codes[name].append(translate.astype(np.min_scalar_type(len(known)))[codes])

    def arrays(self) -> Iterator[tuple[str, NDArray]]:
        """Arrays for ``fields_<split>.npz``: data set, number of genes, codes and values of each field."""
        empty = np.zeros(0, dtype=np.int32)
        numbers, sizes = np.array(self._datasets, dtype=np.int64).reshape(-1, 2).T
        yield "dataset", np.repeat(numbers, sizes).astype(np.int32)
        yield "n_genes", np.concatenate([empty, *self._n_genes])
        for name in fmt.FIELDS:
            yield f"{name}.codes", np.concatenate([empty, *self._codes[name]], dtype=np.int32)
            yield f"{name}.values", np.array(list(self._values[name]), dtype=np.str_)


def write_compressed(path: Path, arrays: Iterable[tuple[str, NDArray]]) -> None:
    """Write a compressed ``.npz`` of which one array at a time is in memory."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name, array in arrays:
            # a fixed time, so that equal arrays give equal bytes
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def features() -> Any:
    """The TFDS features of a record."""
    import tensorflow_datasets as tfds

    def ragged(dtype: Any, doc: str) -> Any:
        # Raw bytes rather than int64 and float32 lists: a reader gets an array without a loop over values.
        return tfds.features.Tensor(shape=(None,), dtype=dtype, encoding="bytes", doc=doc)

    texts = {name: tfds.features.Text() for name in fmt.FIELDS}
    return tfds.features.FeaturesDict(
        {
            "cell_id": tfds.features.Text(doc="The cell's name in its data set."),
            "dataset": tfds.features.Scalar(np.int32, doc="Line in datasets.jsonl, from 0."),
            "genes": ragged(np.int32, "Row numbers in genes.tsv by falling expression."),
            "expression": ragged(np.float16, "log10(1 + normalised expression), same order."),
            "coordinates": ragged(np.float32, "Position in space; empty if there is none."),
            **texts,
        }
    )


def write_tfds_metadata(
    folder: Path, final: Path, shards: Mapping[str, Sequence[tuple[int, int]]], description: str
) -> None:
    """Write ``features.json`` and ``dataset_info.json``.

    Parameters
    ----------
    folder : Path
        Where to write.
    final : Path
        Where the files will be in the end.
    shards : dict of split to sequence of (records, bytes)
    description : str
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, file_adapters, naming, splits

    identity = dataset_info.DatasetIdentity(
        name=fmt.DATASET_NAME,
        version=tfds.core.Version(fmt.FORMAT_VERSION),
        data_dir=str(final),
        module_name=__name__,
    )
    info = dataset_info.DatasetInfo(builder=identity, description=description, features=features())
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    infos = [
        splits.SplitInfo(
            name=name,
            shard_lengths=[n for n, _ in sizes],
            num_bytes=sum(size for _, size in sizes),
            filename_template=naming.ShardedFileTemplate(
                data_dir=final, dataset_name=fmt.DATASET_NAME, split=name, filetype_suffix="array_record"
            ),
        )
        for name, sizes in shards.items()
    ]
    info.set_splits(splits.SplitDict(infos))
    info.write_to_directory(folder)
