"""Text files of what is known about genes, plain or compressed."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
COMPRESSED = (*_OPENERS, ".zip")


class KnowledgeError(ValueError):
    """A file of gene sets or interactions that cannot be used; the message names file and line."""


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file, plain or in ``.gz``, ``.xz``, ``.bz2`` or ``.zip`` (of one file).

    Raises
    ------
    KnowledgeError
        If the content, also as it is read, is no text or not what the suffix says.
    FileNotFoundError
        If there is no such file.
    """
    try:
        with _open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise KnowledgeError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except (OSError, lzma.LZMAError, zipfile.BadZipFile, EOFError) as error:
        if getattr(error, "errno", None) is not None:  # of the file system, not of the decompressor
            raise
        raise KnowledgeError(f"{path}: damaged, or not compressed as its name says ({error})") from error


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise KnowledgeError(f"{path} holds {len(names)} files; unpack it and give the one that is meant")
            with archive.open(names[0]) as file:
                yield file
    else:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield file
