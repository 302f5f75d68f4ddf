"""Where compiled code is kept, and what happens where it cannot be."""

import importlib.util
import sys

import numba
import pytest

MODULE = """
from c2s_jax.jit import compiled

@compiled
def twice(x):
    return 2 * x
"""


@pytest.fixture
def twice(tmp_path, monkeypatch):
    """Function that imports a module of `tmp_path` and calls its compiled function."""

    def call() -> int:
        path = tmp_path / "installed" / "twice_of_test.py"
        path.write_text(MODULE)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module.twice(21)

    (tmp_path / "installed").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    return call


def _block(folder):
    """Not even root writes into a folder that is a file."""
    folder.write_text("")


def test_beside_the_module(tmp_path, twice):
    assert twice() == 42
    assert list((tmp_path / "installed" / "__pycache__").glob("*.nbi"))


def test_read_only_installation_with_a_users_folder(tmp_path, twice):
    _block(tmp_path / "installed" / "__pycache__")
    assert twice() == 42
    assert list((tmp_path / "user").rglob("*.nbi"))


def test_nothing_can_be_written(tmp_path, twice):
    _block(tmp_path / "installed" / "__pycache__")
    _block(tmp_path / "user")
    assert twice() == 42


def test_chosen_folder(tmp_path, twice, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "chosen"))
    assert twice() == 42
    assert list((tmp_path / "chosen").rglob("*.nbi"))
    assert not list((tmp_path / "installed").rglob("*.nbi"))
