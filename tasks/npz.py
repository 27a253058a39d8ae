"""Arrays of others, from .npz files: no larger than allowed, and never unpickled."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tasks.archive import DataError, Limits, ZipFiles

Array = np.ndarray[Any, np.dtype[Any]]

KINDS = "biufSU"  # booleans, numbers, and text


def arrays(path: Path, names: list[str], limits: Limits) -> list[Array]:
    """The arrays of these names, not writeable.

    Raises:
        DataError: one is missing, damaged, larger than the limits allow or holds pickled objects.
    """
    if path.is_symlink():
        raise DataError(f"{path} is a symbolic link; copy what it points to")
    with ZipFiles(path, limits) as archive:
        for name in names:
            if f"{name}.npy" not in archive.names:
                raise DataError(f"{path} has no array {name!r}")
        return [_parse(archive.read(f"{name}.npy"), f"{name} in {path}") for name in names]


def _parse(data: bytes, where: str) -> Array:
    """The array of an .npy file: a head that says what the rest is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a head that has to be mended first, or a type that is going away
            return _array(data, where)
    except DataError:
        raise
    except Exception as error:  # the head is read by Python's own parser, which raises all kinds
        raise DataError(f"{where} is no array: {error}") from error


def _array(data: bytes, where: str) -> Array:
    stream = io.BytesIO(data)
    version, _ = np.lib.format.read_magic(stream)
    if version not in (1, 2):
        raise DataError(f"{where} has the format {version}; 1 and 2 are read")
    head = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = head(stream)
    if dtype.hasobject:
        raise DataError(f"{where} holds pickled objects, and those are never read: unpickling runs code")
    if dtype.kind not in KINDS or dtype.subdtype is not None or min(shape, default=0) < 0:
        raise DataError(f"{where} is an array of {dtype}{shape}; plain numbers and text are read")
    rest, needed = len(data) - stream.tell(), dtype.itemsize * math.prod(shape)
    if rest != needed:
        raise DataError(f"{where} has {rest:,} bytes for an array of {needed:,}")
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "U":
        array.tolist()  # raises if there is something in it that is no letter
    return array
