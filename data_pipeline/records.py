"""A block of cells as TFDS records, and the metadata files that let TFDS open them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.data import corpus_format as fmt


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
        """Serialised `tf.train.Example`s, as `features().serialize_example` makes them, only faster."""
        from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

        def text(value: bytes) -> Any:
            return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))

        number = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[self.dataset]))
        genes = self.genes.astype("<i4").tobytes()
        expression = self.expression.astype("<f2").tobytes()
        columns = [(name, self.fields.get(name)) for name in fmt.FIELDS]
        bounds = self.indptr.tolist()
        for cell, cell_id in enumerate(self.cell_ids):
            start, stop = bounds[cell], bounds[cell + 1]
            features = {name: text(b"" if c is None else str(c[cell]).encode()) for name, c in columns}
            features["cell_id"] = text(str(cell_id).encode())
            features["dataset"] = number
            features["genes"] = text(genes[4 * start : 4 * stop])
            features["expression"] = text(expression[2 * start : 2 * stop])
            place = b"" if self.coordinates is None else self.coordinates[cell].astype("<f4").tobytes()
            features["coordinates"] = text(place)
            example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
            yield example.SerializeToString(deterministic=True)


@dataclass
class Columns:
    """A split's fields as columns of codes, grown block by block."""

    _codes: dict[str, list[NDArray[np.int32]]] = field(default_factory=lambda: {f: [] for f in fmt.FIELDS})
    _values: dict[str, dict[str, int]] = field(default_factory=lambda: {f: {} for f in fmt.FIELDS})
    _datasets: list[NDArray[np.int32]] = field(default_factory=list)
    _n_genes: list[NDArray[np.int32]] = field(default_factory=list)

    def append(self, block: Block) -> None:
        for name in fmt.FIELDS:
            values = block.fields.get(name)
            column = np.full(len(block), "", dtype=object) if values is None else np.asarray(values, dtype=object)
            codes, unique = pd.factorize(column)
            known = self._values[name]
            translate = [known.setdefault(str(value), len(known)) for value in unique]
            self._codes[name].append(np.asarray(translate, dtype=np.int32)[codes])
        self._datasets.append(np.full(len(block), block.dataset, dtype=np.int32))
        self._n_genes.append(np.diff(block.indptr).astype(np.int32))

    def arrays(self) -> dict[str, NDArray]:
        """Arrays for ``fields_<split>.npz``: data set, number of genes, codes and values of each field."""
        empty = np.zeros(0, dtype=np.int32)
        arrays = {
            "dataset": np.concatenate([empty, *self._datasets]),
            "n_genes": np.concatenate([empty, *self._n_genes]),
        }
        for name in fmt.FIELDS:
            arrays[f"{name}.codes"] = np.concatenate([empty, *self._codes[name]])
            arrays[f"{name}.values"] = np.array(list(self._values[name]), dtype=np.str_)
        return arrays


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
