"""Files of a run: written whole or not at all, read only if they are files, named in every error."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tinymaml.tasks.archive import whole

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def read(path: Path) -> bytes:
    """A regular file's bytes; anything else might never come to an end. Raises OSError, which names the file."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a regular file")
    with naming(path):
        return path.read_bytes()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there. Raises OSError, which names the file."""
    with naming(path), whole(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """Errors of the system inside say what they are about: a full disk alone does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(what)
        raise
