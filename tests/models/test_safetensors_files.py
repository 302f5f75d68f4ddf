"""Folders of safetensors files: parts of tensors, shards, and everything that can be wrong with them."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from c2s_jax.models.folders import new_folder
from c2s_jax.models.safetensors_files import SafetensorsFolder, write_safetensors

INDEX = "model.safetensors.index.json"


def tensors() -> dict[str, NDArray]:
    rng = np.random.default_rng(0)
    return {
        "wide": rng.normal(size=(6, 10)).astype(np.float32),
        "narrow": rng.normal(size=(7, 4)).astype(ml_dtypes.bfloat16),
        "half": rng.normal(size=(5,)).astype(np.float16),
        "layers.0": rng.normal(size=(3, 4)).astype(np.float32),
        "layers.1": rng.normal(size=(3, 4)).astype(np.float32),
        "single": np.array(3, np.float32),
    }


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def shards(folder: Path) -> Path:
    """Two shards, ``wide`` in the first."""
    write_safetensors(folder, tensors().items(), max_shard_size=300)
    assert sorted(p.name for p in folder.glob("*.safetensors")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    return folder


def refused(folder: Path, *parts: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind) as caught:
        SafetensorsFolder(folder)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("size", [2**30, 300, 1])
def test_written_and_read(tmp_path: Path, size: int) -> None:
    """One file, shards, and a shard a tensor."""
    write_safetensors(tmp_path, tensors().items(), max_shard_size=size)
    files = SafetensorsFolder(tmp_path)
    assert files.tensors.keys() == tensors().keys()
    for name, value in tensors().items():
        found = files.read(name)
        assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes())
        assert files.dtype(name) == value.dtype.name
        assert files.nbytes(name) == value.nbytes
    assert len(list(tmp_path.glob("*.safetensors"))) == {2**30: 1, 300: 2, 1: 6}[size]
    assert not list(tmp_path.glob("*.tmp"))


def test_parts(tmp_path: Path) -> None:
    write_safetensors(tmp_path, tensors().items())
    files = SafetensorsFolder(tmp_path)
    for name, index in {
        "wide": (slice(2, 5), slice(3, 9)),
        "narrow": (slice(6, 7), slice(0, 4)),
        "half": (slice(1, 4),),
        "layers.1": (slice(0, 3), slice(0, 4)),
    }.items():
        np.testing.assert_array_equal(files.read(name, index), tensors()[name][index])


def test_index_is_that_of_transformers(tmp_path: Path) -> None:
    index = json.loads((shards(tmp_path) / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in tensors().values())
    assert index["weight_map"] == {
        name: file.name for file in tmp_path.glob("*.safetensors") for name in load_file(file)
    }


def test_tensors_that_are_not_contiguous(tmp_path: Path) -> None:
    value = np.arange(12, dtype=np.float32).reshape(3, 4).T
    write_safetensors(tmp_path, [("t", value), ("part", value[::2])])
    np.testing.assert_array_equal(SafetensorsFolder(tmp_path).read("t"), value)
    np.testing.assert_array_equal(SafetensorsFolder(tmp_path).read("part"), value[::2])


def test_no_more_than_a_shard_is_held(tmp_path: Path) -> None:
    """Tensors are drawn as they are written."""
    written = []

    def draw() -> Any:
        for i in range(8):
            yield f"t{i}", np.zeros(25, np.float32)
            written.append(len(list(tmp_path.glob("*.tmp"))))

    write_safetensors(tmp_path, draw(), max_shard_size=200)
    assert written == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_broken_export_is_no_checkpoint(tmp_path: Path) -> None:
    """What a killed process leaves has other names; what an error leaves is removed."""

    def draw() -> Any:
        yield from tensors().items()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as folder:
        write_safetensors(folder, draw(), max_shard_size=100)
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        write_safetensors(tmp_path, draw(), max_shard_size=100)
    assert list(tmp_path.glob("*.tmp"))
    refused(tmp_path, "no model.safetensors", kind=FileNotFoundError)


def test_a_leftover_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "stale").touch()
    with new_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(FileExistsError, match="out exists already"), new_folder(tmp_path / "out"):
        pass


# ------------------------------------------------------------------------------------------------------ errors


def test_no_folder_or_no_weights(tmp_path: Path) -> None:
    refused(tmp_path / "none", "none is not a folder", kind=FileNotFoundError)
    (tmp_path / "config.json").touch()
    refused(tmp_path, "no model.safetensors", "config.json", kind=FileNotFoundError)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_pickles_are_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(tmp_path, name, "pickle", "convert them to safetensors")


def test_missing_shard(tmp_path: Path) -> None:
    (shards(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    refused(tmp_path, "lacks 1 of 2 shards", "model-00002-of-00002.safetensors", kind=FileNotFoundError)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = shards(tmp_path) / "model-00002-of-00002.safetensors"
    os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
    refused(tmp_path, f"{path} ({path.stat().st_size:,} bytes) is cut off or no safetensors file")


@pytest.mark.parametrize(
    "header",
    [b"not json", b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b'{"a":{"dtype":"F32"}}'],
    ids=["no JSON", "sizes that differ", "no offsets"],
)
def test_unreadable_header(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    refused(tmp_path, "model.safetensors", "is cut off or no safetensors file")


def test_tensor_of_the_index_that_is_not_in_its_file(tmp_path: Path) -> None:
    index = json.loads((shards(tmp_path) / INDEX).read_text())["weight_map"]
    first = "model-00001-of-00002.safetensors"
    write_index(tmp_path, {**index, "ghost": first})
    refused(tmp_path, INDEX, f"lists tensor ghost in {first}, which does not hold it")
    write_index(tmp_path, {**index, "layers.1": first})
    refused(tmp_path, INDEX, "tensor layers.1", "it is in model-00002-of-00002.safetensors")


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    path = shards(tmp_path) / "model-00002-of-00002.safetensors"
    save_file({**load_file(path), "wide": tensors()["wide"]}, path)
    refused(tmp_path, "tensor wide is both in", "model-00001-of-00002.safetensors", path.name)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": ["a"]}', '{"weight_map": {"a": 3}}', "{}"])
def test_unreadable_index(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    refused(tmp_path, f"{INDEX} is not an index")


def test_shards_elsewhere(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": "../secret.safetensors"})
    refused(tmp_path, INDEX, "'../secret.safetensors'")


def test_dtypes_that_are_not_read(tmp_path: Path) -> None:
    save_file({"good": np.zeros(2, np.float32), "bad": np.zeros(2, np.float64)}, tmp_path / "model.safetensors")
    files = SafetensorsFolder(tmp_path)
    assert files.dtype("good") == "float32"
    with pytest.raises(ValueError, match=r"tensor bad in \S*model\.safetensors is F64"):
        files.dtype("bad")
