"""Notice of a step that hangs: what every thread was doing, and the end of the process if so wished."""

import faulthandler
import os
import sys
import threading
import time

import jax

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


class Watchdog:
    """Thread that waits for signs of life, and prints the stacks of all threads when none comes.

    Parameters
    ----------
    workdir
        The stacks are also written to ``stacks.<process>.txt`` there.
    seconds
        Longest time without a sign of life; 0 turns the watchdog off.
    abort
        End the process after the stacks, with exit code 70.
    """

    def __init__(self, workdir: str, *, seconds: float, abort: bool):
        self._path = os.path.join(workdir, f"stacks.{jax.process_index()}.txt")
        self._seconds, self._abort = seconds, abort
        self._last, self._doing = time.monotonic(), "start"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if seconds:
            self._thread.start()

    def alive(self, doing: str) -> None:
        """Give a sign of life, and say what is to be done next."""
        self._last, self._doing = time.monotonic(), doing

    def close(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        told = None
        while not self._ended.wait(max(0.01, min(self._last + self._seconds - time.monotonic(), self._seconds))):
            if time.monotonic() - self._last >= self._seconds and told != self._last:
                told = self._last  # once for each time it hangs
                self._tell()

    def _tell(self) -> None:
        what = f"No sign of life for {self._seconds:g} s during {self._doing}, on process {jax.process_index()}"
        print(f"\n{what}. Stacks of all threads (also in {self._path}):", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        with open(self._path, "a") as file:  # last: the disk may be what hangs
            print(what, time.strftime("%Y-%m-%d %H:%M:%S"), file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)
        if self._abort:
            print("Ending this process (watchdog.abort). Run again to go on from the last checkpoint.", file=sys.stderr)
            sys.stderr.flush()
            os._exit(EXIT_CODE)
