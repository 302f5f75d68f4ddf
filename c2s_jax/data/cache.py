"""The last few results of a function, each made once by whichever thread asks first."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class LastFew(Generic[T]):
    """A function of an integer that keeps what it made last."""

    def __init__(self, make: Callable[[int], T], keep: int):
        self._make, self._keep = make, keep
        self._made: OrderedDict[int, T] = OrderedDict()
        self._locks: dict[int, Lock] = {}
        self._lock = Lock()

    def __call__(self, number: int) -> T:
        with self._lock:
            lock = self._locks.setdefault(number, Lock())
        with lock:
            made = self._made.get(number)  # one look-up: another thread may drop it meanwhile
            if made is None:
                made = self._make(number)
                with self._lock:
                    self._made[number] = made
                    while len(self._made) > self._keep:
                        self._locks.pop(self._made.popitem(last=False)[0], None)
            return made
