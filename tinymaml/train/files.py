"""Files of a run: written whole or not at all, named in every error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tinymaml.tasks.atomic_files import replacing


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there. Raises OSError, which names the file."""
    with naming(path), replacing(path) as temporary:
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
