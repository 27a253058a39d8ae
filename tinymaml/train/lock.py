"""Locks of folders and files of a run. The system lets go of them when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tinymaml.train.files import naming

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PAUSE = 0.02  # seconds between two attempts
_PLACE = 1 << 30  # of the byte that is locked on Windows, where nobody can read what is locked: none of the text


class InUse(RuntimeError):
    """Another process works on it; the message says which."""


@contextlib.contextmanager
def held(path: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock, which is a file that says who has it. After a kill that file is still there, and nobody has it.

    Args:
        path: of that file; its folder is made if need be.
        what: it is for, as the message names it.
        wait: seconds to wait for another process that has it.

    Raises:
        InUse: another process still has it.
        OSError: the file cannot be made, or its file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + wait
    while (file := _taken(path)) is None:
        if time.monotonic() >= until:
            raise InUse(f"{what} is in use{_holder(path)}: wait for it to end, or stop it")
        time.sleep(_PAUSE)
    with file:
        file.truncate(0)
        file.write(json.dumps(_self()).encode())
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file; then it stays, as after a kill
                path.unlink()


def _taken(path: Path) -> IO[bytes] | None:
    """The lock's file, locked; None if another process has it."""
    while True:
        file = path.open("ab")
        try:
            with naming(path):
                _lock(file)
        except (BlockingIOError, PermissionError):
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        # Whoever had it may have removed the file since it was opened: that lock is none any more.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _self() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f" by process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (OSError, ValueError, TypeError, KeyError):  # it has only just begun, or ended
        return ""
