"""Compilation of hot loops by numba.

Modules of compiled functions are imported where they are used: importing numba takes half a second.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` on first use, without Python objects and without the interpreter's lock.

    Machine code is kept for the next process in `NUMBA_CACHE_DIR`, beside the module or in the user's cache
    folder, the first of them that can be written. Where none can, each process compiles anew. It is made again when
    the function's own file has changed, not for changes in other files that it calls.
    """
    machine_code: Any
    try:
        machine_code = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache
        machine_code = njit(nogil=True)(function)
    return machine_code
