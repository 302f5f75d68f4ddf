"""Programs that start again with huge pages."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from c2s_jax import huge_pages

ON_REQUEST = "always [madvise] never\n"
PROGRAM = """
import os, pathlib, sys
from c2s_jax import huge_pages
huge_pages.ENABLED = pathlib.Path(sys.argv[1])
print("started", os.getpid(), flush=True)
huge_pages.restart_with_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[2:])
"""


@pytest.fixture(name="enabled")
def file_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    path = tmp_path / "enabled"
    path.write_text(ON_REQUEST)
    return path


def test_asks_where_the_kernel_gives_on_request(enabled: Path) -> None:
    assert huge_pages.wanted({}, enabled) == "glibc.malloc.hugetlb=1"
    others = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
    assert huge_pages.wanted(others, enabled) == "glibc.malloc.check=0:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("text", ["[always] madvise never\n", "always madvise [never]\n"])
def test_lets_be_what_the_kernel_decides(enabled: Path, text: str) -> None:
    enabled.write_text(text)
    assert huge_pages.wanted({}, enabled) is None
    assert huge_pages.wanted({}, enabled.with_name("absent")) is None


@pytest.mark.parametrize("libc", [("glibc", "2.31"), ("", ""), ("musl", "1.2")])
def test_needs_a_new_glibc(enabled: Path, monkeypatch: pytest.MonkeyPatch, libc: tuple[str, str]) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    assert huge_pages.wanted({}, enabled) is None


def test_a_choice_is_kept(enabled: Path) -> None:
    assert huge_pages.wanted({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, enabled) is None


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc alone has the switch")
def test_starts_again_once_with_the_same_arguments(enabled: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", PROGRAM, str(enabled), "--config=a b", "x"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 3
    assert said[0] == said[1]  # the same process
    assert said[2] == "glibc.malloc.hugetlb=1 ['--config=a b', 'x']"
