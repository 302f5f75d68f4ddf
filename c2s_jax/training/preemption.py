"""Notice that the machine is about to be taken away (SIGTERM), agreed on by all processes of a run."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: saved and ended early, to be started again


class Preempted(Exception):
    """A run was asked to end and has saved where it was."""


class Preemption:
    """Whether the run has been asked to end.

    With one process, SIGTERM is noted here. With several, JAX's coordination service takes it on any of them and tells
    all to end after the same step.
    """

    def __init__(self) -> None:
        self._told = False
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._tell)

    def reached(self, count: int) -> bool:
        """Whether to save and end now.

        Parameters
        ----------
        count
            Of steps that this and all other processes have made; it never falls.
        """
        return self._told or (jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(count))

    def close(self) -> None:
        """Give SIGTERM back its meaning."""
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told = True
