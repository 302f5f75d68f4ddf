"""Who does the steps of a build: this process, or several of them."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

from data_pipeline.jobs import Job, Unit
from data_pipeline.steps import Advance, Worker

_POLL_SECONDS = 0.5


class Runner(Protocol):
    """Does a step for many units, in any order. A context manager."""

    def run(self, kind: str, units: Sequence[Unit], advance: Advance) -> None:
        """Return once all are done; `advance` is called with numbers of cells as they are."""
        ...

    def __enter__(self) -> "Runner": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Serial:
    """This process, one unit after the other."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def run(self, kind: str, units: Sequence[Unit], advance: Advance) -> None:
        """See `Runner`."""
        for unit in units:
            self._worker.run(kind, unit, advance)

    def __enter__(self) -> "Serial":
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()


class Processes:
    """`n` processes, a unit each. An error in one stops the others after their current block."""

    def __init__(self, job: Job, n: int) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy the threads of array_record and HDF5
        self._cells: Any = context.Value("q", 0)
        self._stop: Any = context.Event()
        self._seen = 0
        self._pool = ProcessPoolExecutor(n, context, _start, (job, self._cells, self._stop))

    def run(self, kind: str, units: Sequence[Unit], advance: Advance) -> None:
        """See `Runner`."""
        with _without_interrupts():
            waiting = {self._pool.submit(_run, kind, unit) for unit in units}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
                self._report(advance)
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker process was killed, perhaps because memory ran out: use fewer --workers; what was finished "
                "is kept, the same command goes on from there"
            ) from None
        self._report(advance)

    def _report(self, advance: Advance) -> None:
        cells = self._cells.value
        advance(cells - self._seen)
        self._seen = cells

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back, for good in processes started meanwhile: it reaches all, and the parent passes it on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: Worker
_cells: Any
_stop: Any


class _StoppedError(Exception):
    """Another process has failed, or the user has had enough."""


def _start(job: Job, cells: Any, stop: Any) -> None:
    global _worker, _cells, _stop
    _worker, _cells, _stop = Worker(job), cells, stop


def _run(kind: str, unit: Unit) -> None:
    _worker.run(kind, unit, _advance)


def _advance(cells: int) -> None:
    with _cells.get_lock():
        _cells.value += cells
    if _stop.is_set():
        raise _StoppedError
