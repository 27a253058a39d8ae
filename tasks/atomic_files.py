"""How files are written: under a temporary name, synced, then renamed. What killed processes left is taken away."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from tinymaml.tasks.reading import NotAFile, must_be_a_file

try:
    import fcntl
except ImportError:  # Windows: there what a killed process left stays
    fcntl = None  # type: ignore[assignment]

ENDING = ".tinymaml.tmp"  # of temporary names
_numbers = itertools.count()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; on leaving the file is synced and gets its name, after an error it is removed.

    The file is there already, empty: write into it, do not put another in its place. It is locked as long as this
    process lives, by which others know that it is in use; temporary files in the same folder that nobody has locked
    are removed.

    Raises:
        NotAFile: under the name itself there is a folder, or something else that is no file.
        OSError: the folder cannot be made or written to.
    """
    if path.exists():
        must_be_a_file(path, path.stat())
    elif not path.name:
        raise NotAFile(f"{path} is a folder, not a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    temporary, lock = _claim(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        if lock is not None:
            os.close(lock)
    if os.name != "nt":  # a folder cannot be opened on Windows
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _claim(path: Path) -> tuple[Path, int | None]:
    """A new empty file beside the path, and a descriptor that keeps it locked."""
    while True:
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{next(_numbers)}{ENDING}")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:  # of a process with the same number, on another machine or long dead
            continue
        if fcntl is None:
            os.close(descriptor)
            return temporary, None
        with contextlib.suppress(OSError):  # a file system without locks: nobody else can lock it, and so remove it
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is(temporary, descriptor):  # and was not taken for abandoned before it was locked
            return temporary, descriptor
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder that no living process has locked."""
    if fcntl is None:
        return
    for path in folder.glob(f"*{ENDING}"):
        with contextlib.suppress(OSError):  # gone meanwhile, in use, somebody else's, or no file
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                must_be_a_file(path, os.fstat(descriptor))
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is(path, descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    """Whether a name is still that of an open file."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
