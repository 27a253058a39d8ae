"""The folder that machine code is kept in from one process to the next.

It is $TINYMAML_CACHE, or else tinymaml/ in $XDG_CACHE_HOME or ~/.cache, or, where that cannot be written to, one of the
user's own in the system's folder for temporary files. What lies in it is executed: so it has to belong to the user, and
nobody else may write to it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_own(status: os.stat_result) -> bool:
    """Whether it belongs to the user, and nobody else may write to it. Windows keeps what is a user's in other ways."""
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & OTHERS)


def folder() -> Path | None:
    """The folder, made if need be; None if there is none that can be used: nothing is kept then."""
    asked = os.environ.get("TINYMAML_CACHE")
    if asked:
        return _usable(Path(asked))
    return _usual() or _temporary()


def _usual() -> Path | None:
    try:
        return _usable(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinymaml")
    except RuntimeError:  # nobody knows where the user is at home
        return None


def _temporary() -> Path | None:
    """Anybody can put something where it would be: a link to somewhere else is no folder of the user's own."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    try:
        path = Path(tempfile.gettempdir()) / f"tinymaml-cache-{user}"
        return None if path.is_symlink() else _usable(path, parents=False)
    except OSError:  # there is no folder for temporary files that can be written to
        return None


def _usable(path: Path, parents: bool = True) -> Path | None:
    try:
        path.mkdir(parents=parents, exist_ok=True, mode=0o700)
        status = path.stat()
    except OSError:
        return None
    return path if is_own(status) and os.access(path, os.W_OK | os.X_OK) else None
