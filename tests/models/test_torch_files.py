"""Files of torch.save, read without torch; and files that would do something else."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from c2s_jax.models.torch_files import read_torch

BASE = torch.arange(24.0).reshape(4, 6)
TENSORS = OrderedDict(
    plain=BASE.clone(),
    turned=BASE.clone().T,
    part=BASE[1:3, ::2],  # an offset, and the storage of the next one
    same=BASE[0],
    scalar=torch.tensor(3.5),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(torch.ones(2)),
    half=torch.tensor([1.5, -2.0], dtype=torch.float16),
    brain=torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    double=torch.tensor([1 / 3], dtype=torch.float64),
    whole=torch.tensor([2**40]),
    flags=torch.tensor([True, False]),
)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_those_of_torch(tmp_path: Path, zipped: bool) -> None:
    TENSORS.__dict__["_metadata"] = {"": {"version": 1}}  # as in a module's state
    torch.save(TENSORS, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "x.pt")
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        value = found[name]
        assert str(value.dtype) == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(value.astype(np.float64), tensor.detach().double().numpy(), err_msg=name)


class Call:
    """Pickled, it is a call of ``function``."""

    def __init__(self, function: Any, *args: Any):
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def write(path: Path, content: bytes, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"data.pkl": content, "version": b"3\n", **files}.items():
            archive.writestr(f"x/{name}", data)
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "args"),
    [(os.system, ("touch {}",)), (eval, ("open('{}', 'w')",)), (getattr, (torch, "load")), (torch.nn.Linear, (2, 2))],
    ids=["system", "eval", "getattr", "module"],
)
def test_nothing_else_is_called(tmp_path: Path, protocol: int, function: Any, args: tuple) -> None:
    touched = tmp_path / "touched"
    args = tuple(arg.format(touched) if isinstance(arg, str) else arg for arg in args)
    if function is getattr:
        args = (Call(__import__, "os"), "system")
    content = pickle.dumps({"weight": Call(function, *args)}, protocol)
    with pytest.raises(ValueError, match=r"it names .*, which is not part of a tensor"):
        read_torch(write(tmp_path / "x.pt", content))
    (tmp_path / "old.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"it names .*, which is not part of a tensor"):
        read_torch(tmp_path / "old.bin")
    assert not touched.exists()


def test_what_is_named_cannot_be_changed(tmp_path: Path) -> None:
    """Opcodes that set attributes of what a pickle names."""
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    for state in (b"(N}X\x05\x00\x00\x00_callX\x01\x00\x00\x00xstb.", b"}X\x05\x00\x00\x00_callX\x01\x00\x00\x00xsb."):
        with pytest.raises(ValueError, match=r"x\.pt"):
            read_torch(write(tmp_path / "x.pt", b"\x80\x02" + function + state))
    torch.save({"a": BASE}, tmp_path / "y.pt")
    np.testing.assert_array_equal(read_torch(tmp_path / "y.pt")["a"], BASE.numpy())


def tensor(shape: str, strides: str, offset: int = 0, size: int = 6) -> bytes:
    """A pickle in text of one float32 tensor "a" over storage "0"."""
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{size}\ntQ"
    return f"(dS'a'\nctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{shape}{strides}I00\nNtRs.".encode()


def numbers(*values: int) -> str:
    return "(" + "".join(f"I{value}\n" for value in values) + "t"


def test_tensors_lie_within_their_storage(tmp_path: Path) -> None:
    data = {"data/0": np.arange(6, dtype=np.float32).tobytes()}
    good = write(tmp_path / "good.pt", tensor(numbers(2, 2), numbers(3, 1), 1), **data)
    np.testing.assert_array_equal(read_torch(good)["a"], [[1, 2], [4, 5]])
    for shape, strides, offset in [((2, 3), (4, 1), 0), ((2, 3), (3, 1), 1), ((2,), (-1,), 3), ((9,), (0,), 0)]:
        bad = write(tmp_path / "bad.pt", tensor(numbers(*shape), numbers(*strides), offset), **data)
        with pytest.raises(ValueError, match="does not lie within its 6 numbers|other things than a storage"):
            read_torch(bad)
    with pytest.raises(ValueError, match="storage 0 is cut off: 24 bytes for 7 numbers"):
        read_torch(write(tmp_path / "bad.pt", tensor(numbers(2), numbers(1), size=7), **data))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([BASE], "no dictionary of tensors but a list"),
        ({"epoch": 3, "model": {"a": BASE}}, r"other things than tensors \('epoch', 'model'\)"),
    ],
)
def test_other_contents(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message):
        read_torch(tmp_path / "x.pt")


def test_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_torch(tmp_path / "x.pt")
    for zipped in (True, False):
        torch.save({"a": BASE}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "whole.pt").read_bytes()
        for keep in (0, 10, len(whole) // 2, len(whole) - 30):
            (tmp_path / "cut.pt").write_bytes(whole[:keep])
            with pytest.raises(ValueError, match=r"cut\.pt"):
                read_torch(tmp_path / "cut.pt")
