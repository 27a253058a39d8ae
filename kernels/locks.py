"""Locks that are free after a fork: the thread that holds one in the parent is not in the child to release it."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet


class Lock:
    """As `threading.Lock`, but free in a forked child. What it guards must be whole, or be made anew, in the child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _all.add(self)

    def acquire(self, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *failure: Any) -> None:
        self._lock.release()


_all: WeakSet[Lock] = WeakSet()


def _free_all() -> None:
    for lock in _all:
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
