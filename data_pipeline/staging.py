"""The folder beside the output in which a corpus grows, and from which an interrupted build goes on.

``DIR.incomplete-<fingerprint>`` holds ``corpus/``, which becomes ``DIR`` as the last act, and ``work/`` with what the
steps leave for one another. A step that is done has a small JSON file that lists its files with their checksums.
The fingerprint is made of the options and of the sizes and times of the inputs, so that only the same command on the
same inputs finds earlier work.
"""

import fcntl
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import writer
from data_pipeline.writer import CorpusExistsError, FileFacts, naming_errors

_LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Staging:
    """Where a corpus grows. All processes that work on it must see this folder.

    Attributes
    ----------
    folder : Path
    output : Path
        What ``folder/corpus`` will be.
    """

    folder: Path
    output: Path

    @property
    def corpus(self) -> Path:
        """Files of the corpus, under their names."""
        return self.folder / "corpus"

    @property
    def work(self) -> Path:
        """What steps leave for later steps."""
        return self.folder / "work"

    @property
    def scratch(self) -> Path:
        """Temporary files of readers."""
        return self.folder / "scratch"

    def done(self, step: str) -> dict[str, Any] | None:
        """What a step reported, if it is done and its files are as it left them."""
        path = self.work / f"{step}.json"
        try:
            report = json.loads(path.read_text("utf-8"))
            whole = all(FileFacts(**facts).hold(self.folder / name) for name, facts in report["files"].items())
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return report if whole else None

    def finish(self, step: str, files: Mapping[Path, FileFacts], facts: Mapping[str, Any]) -> None:
        """Mark a step as done."""
        listed = {str(path.relative_to(self.folder)): found.to_dict() for path, found in files.items()}
        writer.write_json(self.work / f"{step}.json", self.output, {"files": listed, **facts})

    def report(self, step: str) -> dict[str, Any]:
        """What a finished step reported."""
        return json.loads((self.work / f"{step}.json").read_text("utf-8"))

    def arrays_path(self, step: str) -> Path:
        """Where a step keeps its arrays."""
        return self.work / f"{step}.npz"

    def save_arrays(self, step: str, arrays: Mapping[str, NDArray]) -> dict[Path, FileFacts]:
        """Write a step's arrays; the result is for `finish`."""
        path = self.arrays_path(step)
        return {path: writer.write_arrays(path, self.output, arrays)}

    def arrays(self, step: str) -> dict[str, NDArray]:
        """A step's arrays."""
        with np.load(self.arrays_path(step), allow_pickle=False) as data:
            return dict(data)


class Workplace:
    """Context manager that holds the staging folder of one build, which no other process may use meanwhile.

    Leaving it by an error in the inputs removes the folder; by anything else (interruption, full disk), what was
    finished stays for the same command to go on from.

    Raises
    ------
    CorpusExistsError
        If the output exists, or another process is making it with the same command.
    CorpusWriteError
        If the folder cannot be made.
    """

    def __init__(self, output: Path, fingerprint: str, *, resumable: bool) -> None:
        self.staging = Staging(output.with_name(f"{output.name}.incomplete-{fingerprint}"), output)
        self._resumable = resumable
        writer.refuse_existing(output)
        with naming_errors(output.parent, output):
            output.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(output, keep=self.staging.folder)
            for folder in (self.staging.folder, self.staging.corpus, self.staging.work, self.staging.scratch):
                folder.mkdir(exist_ok=True)
        try:
            self._lock = _lock(self.staging.folder)
        except BlockingIOError:
            raise CorpusExistsError(
                f"another process is building {output} in {self.staging.folder}: wait for it, or stop it"
            ) from None

    def publish(self) -> None:
        """Give the corpus its name."""
        staging = self.staging
        writer.refuse_existing(staging.output)
        with naming_errors(staging.output, staging.output):
            writer.sync(staging.corpus)
            staging.corpus.rename(staging.output)
            writer.sync(staging.output.parent)
        shutil.rmtree(staging.folder, ignore_errors=True)

    def __enter__(self) -> "Workplace":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        bad_input = kind is not None and issubclass(kind, ValueError | KeyError | FileNotFoundError | FileExistsError)
        if bad_input or (kind is not None and not self._resumable):
            shutil.rmtree(self.staging.folder, ignore_errors=True)
        self._lock.close()


def remove_leftovers(output: Path, keep: Path | None = None) -> list[Path]:
    """Remove unfinished folders of `output`, except `keep`, whose builder is dead; return them."""
    removed = []
    for folder in sorted(output.parent.glob(f"{_escape(output.name)}.incomplete-*")):
        if folder == keep:
            continue
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            continue  # another process is writing there, or has just finished
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
        removed.append(folder)
    return removed


def _lock(folder: Path) -> IO[str]:
    # The kernel drops the lock when its process ends, however it ends.
    file = open(folder / _LOCK_FILE, "a")  # noqa: SIM115 - held open for the life of the build
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
