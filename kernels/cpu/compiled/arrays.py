"""The arrays that compiled kernels take: numbers in C order, so that an address and a shape say where they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_here = threading.local()


class Copied(Exception):
    """A kernel would have to copy an input before it runs, where that is not allowed."""


@contextmanager
def without_copies() -> Iterator[None]:
    """For a launch that will run on other numbers later: a copy made now would be out of date. Raises Copied."""
    _here.forbids = True
    try:
        yield
    finally:
        _here.forbids = False


def whole(x: Any) -> Any:
    """The array in C order."""
    if x.flags.c_contiguous:
        return x
    if getattr(_here, "forbids", False):
        raise Copied
    return np.ascontiguousarray(x)


def plain(x: Any) -> Any:
    """The array in C order, without the copies of an axis that was broadcast over tasks."""
    return x if x.flags.c_contiguous else whole(x[:1] if x.strides[0] == 0 else x)
