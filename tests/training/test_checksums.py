"""Damage to files is found, whatever it is."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from c2s_jax.training import checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a" / "d").mkdir(parents=True)
    (tmp_path / "a" / "d" / "one").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "two").write_bytes(b"")
    (tmp_path / "_CHECKPOINT_METADATA").write_text("{}")
    checksums.write(tmp_path)
    return tmp_path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5000] ^= 0b100
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: flip(f / "a/d/one"), r"a/d/one has the right size, but not the bytes that were written"),
        (lambda f: (f / "a/d/one").write_bytes(b"x"), r"a/d/one has 1 bytes, 10,240 were written"),
        (lambda f: (f / "two").write_bytes(b"x"), r"two has 1 bytes, 0 were written"),
        (lambda f: (f / "two").unlink(), r"two cannot be read \(No such file"),
        (lambda f: (f / checksums.NAME).write_text("{"), r"checksums\.json cannot be read"),
        (lambda f: (f / checksums.NAME).write_bytes(b'{"two": [0, "\xff"]}'), r"checksums\.json cannot be read"),
        (lambda f: (f / checksums.NAME).write_text('{"two": 0}'), r"checksums\.json cannot be read"),
    ],
)
def test_damage_is_found(folder: Path, harm: Callable[[Path], None], message: str) -> None:
    assert checksums.damage(folder) is None
    harm(folder)
    problem = checksums.damage(folder)
    assert problem is not None
    assert re.match(message, problem)


def test_what_is_written_at_the_commit_is_not_damage(folder: Path) -> None:
    (folder / "_CHECKPOINT_METADATA").write_text('{"committed": 1}')
    assert checksums.damage(folder) is None
    assert set(json.loads((folder / checksums.NAME).read_text())) == {"a/d/one", "two"}


def test_a_folder_without_list_is_not_judged(folder: Path) -> None:
    (folder / checksums.NAME).unlink()
    assert checksums.damage(folder) is None


def test_processes_share_the_reading(folder: Path) -> None:
    """Each file is read by one of them, so one and only one finds the damage."""
    flip(folder / "a/d/one")
    found = [checksums.damage(folder, process=i, processes=3) for i in range(3)]
    assert sum(problem is not None for problem in found) == 1
