"""The command `tinymaml` before it has begun: interrupted while the package is imported, it ends with one line.

The package imports this first of all. In any other program it does nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

INTERRUPTED = 130  # the exit status of a process that was stopped


def _is_this_program() -> bool:
    """Whether `tinymaml` or `python -m tinymaml` was called: of the latter `sys.argv` says so only afterwards."""
    called = os.path.basename(sys.argv[0]) if sys.argv else ""
    as_module = called == "-m" and ("-m", "tinymaml") in itertools.pairwise(sys.orig_argv)
    return as_module or called in ("tinymaml", "tinymaml.exe")


def _stop(number: int, frame: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"tinymaml: interrupted\n")
    os._exit(INTERRUPTED)


def _unraisable(event: Any) -> None:
    """Where Python frees something nothing can be raised: an interruption that comes just then would be lost."""
    if issubclass(event.exc_type, KeyboardInterrupt):
        _stop(signal.SIGINT, None)
    sys.__unraisablehook__(event)


@contextlib.contextmanager
def begun() -> Iterator[None]:
    """In here SIGINT raises KeyboardInterrupt again; where it cannot, it ends the process at once."""
    if signal.getsignal(signal.SIGINT) is not _stop:
        yield
        return
    try:
        sys.unraisablehook = _unraisable
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, _stop)
        sys.unraisablehook = sys.__unraisablehook__


if _is_this_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)
