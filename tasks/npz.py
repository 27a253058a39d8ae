"""Arrays of others, from .npz files: no larger than allowed, and never unpickled."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tasks.archive import DataError, Limits, ZipFiles

Array = np.ndarray[Any, np.dtype[Any]]


def arrays(path: Path, names: list[str], limits: Limits) -> list[Array]:
    """The arrays of these names, not writeable.

    Raises:
        DataError: one is missing, damaged, larger than the limits allow or holds pickled objects.
    """
    if path.is_symlink():
        raise DataError(f"{path} is a symbolic link; copy what it points to")
    with ZipFiles(path, limits) as found:
        for name in names:
            if f"{name}.npy" not in found.names:
                raise DataError(f"{path} has no array {name!r}")
        return [_parse(found.read(f"{name}.npy"), f"{name} in {path}") for name in names]


def _parse(data: bytes, where: str) -> Array:
    """The array of an .npy file: a head that says what the rest is."""
    stream = io.BytesIO(data)
    try:
        version, _ = np.lib.format.read_magic(stream)
        if version not in (1, 2):
            raise DataError(f"{where} has the format {version}; 1 and 2 are read")
        head = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = head(stream)
        if dtype.hasobject:
            raise DataError(f"{where} holds pickled objects, and those are never read: unpickling runs code")
        rest, needed = len(data) - stream.tell(), dtype.itemsize * math.prod(shape)
        if rest != needed:
            raise DataError(f"{where} has {rest:,} bytes for an array of {needed:,}")
        return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{where} is no array: {error}") from error
