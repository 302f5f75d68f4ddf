"""The error of this package, and how what others raise becomes one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from c2s_jax.cells import CellDataError


class ReadError(CellDataError):
    """A file that cannot be read as what it is taken for; the message names the file and what in it."""


@contextmanager
def reading(what: str, kind: str = "") -> Iterator[None]:
    """Turn whatever a library raises on damaged bytes into a `ReadError`.

    Parameters
    ----------
    what
        File, and part of it.
    kind
        What it was read as.
    """
    try:
        yield
    except (ReadError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # on damaged files HDF5, Zarr and TileDB raise errors of nearly every kind
        # TileDB adds a stack after an empty line
        reason = f"{error}".strip().split("\n\n")[0] or type(error).__name__
        raise ReadError(f"{what} cannot be read{kind and ' as '}{kind}: {reason}") from error


@contextmanager
def closing_on_error() -> Iterator[ExitStack]:
    """An exit stack that is closed only if something is raised."""
    resources = ExitStack()
    try:
        yield resources
    except BaseException:
        resources.close()
        raise
