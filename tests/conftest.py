"""Set-up shared by all tests: JAX on the CPU, eight virtual devices, compiled programs kept between runs."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from typing import NamedTuple

# Before anything imports jax. A caller may still ask for another platform.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Only what is worth a file. By environment variable, so that child processes do the same.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Programs under test would start twice to set it.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")

import jax
import psutil
import pytest

VIRTUAL_DEVICES = 8
MUCH_MEMORY = 3 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs in pytest's cache, for this process and its children."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        directory = str(config.cache.mkdir("jax"))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
        jax.config.update("jax_compilation_cache_dir", directory)
    # A setting of this process alone: through XLA_FLAGS, child processes, such as a training run under test,
    # would get eight devices too. JAX refuses both at once, so a caller's flag wins.
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", VIRTUAL_DEVICES)


@pytest.fixture(scope="module", autouse=True)
def _memory() -> Iterator[None]:
    """Let go of compiled programs where a worker has grown large: two of them share a machine."""
    yield
    if psutil.Process().memory_info().rss > MUCH_MEMORY:
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed memory otherwise
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class Bundle(NamedTuple):
    """Paths of the demo's corpus and tokenizer."""

    corpus: str
    tokenizer: str


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Corpus and tokenizer of the 700 cells in scanpy's wheel, as the demo builds them."""
    from data_pipeline import bundled

    return Bundle(*bundled.prepare("pbmc68k_reduced", tmp_path_factory.mktemp("bundle")))
