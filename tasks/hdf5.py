"""HDF5 files of others: only what lies in the file itself, and never more of it than the file is large.

A link may lead to another file or to itself, a few bytes may unpack to gigabytes, and thousands of names may be of one
data set. So only hard links are followed, only data sets stored in one piece are read, and what is read is counted.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np

from tinymaml.tasks.extras import require

Array = np.ndarray[Any, np.dtype[Any]]

MOST_TEXT = 1 << 24  # bytes of an attribute


class Guarded(io.RawIOBase):
    """A file for HDF5 to read through, which refuses a heap of texts in whose list HDF5 would go round for ever."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        place = self._file.tell()
        count = self._file.readinto(buffer)
        if bytes(buffer[:4]) == b"GCOL":
            self._check_heap(place)
            self._file.seek(place + count)
        return count

    def _check_heap(self, place: int) -> None:
        """Raises ValueError if an object of the heap that begins there is not followed by the next one."""
        self._file.seek(place)
        (size,) = struct.unpack_from("<8xQ", self._file.read(16).ljust(16, b"\0"))
        if size > self._file.seek(0, io.SEEK_END) - place:
            raise ValueError("a heap of texts is larger than the file")
        self._file.seek(place)
        heap, at = self._file.read(size), 16
        while at + 16 <= size:
            index, length = struct.unpack_from("<H6xQ", heap, at)
            step = 16 + (length + 7) // 8 * 8 if index else length  # index 0: what is free, with its head
            if step < 16 or at + step > size:
                raise ValueError("a heap of texts is damaged")
            at += step


class Reader:
    """Reads data sets of an open file of `size` bytes, at most so many bytes in all."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size

    def array(self, group: Any, name: str, kinds: str) -> Array:
        """A data set's values. Raises as `dataset`; ValueError: with those read before they are more than the file."""
        dataset = self.dataset(group, name, kinds)
        self._left -= _bytes(dataset)
        if self._left < 0:
            raise ValueError(f"its data sets have more than the {self._size:,} bytes of the file")
        return np.asarray(dataset[()])

    def dataset(self, group: Any, name: str, kinds: str) -> Any:
        """A data set whose values lie in the file in one piece.

        Args:
            kinds: NumPy's letters of the kinds that its values may be of, some of "biufS".

        Raises:
            LookupError: it is not there.
            TypeError: it is something else, or of another kind.
            ValueError: its values are elsewhere, packed, or more than the file.
        """
        h5py = require("h5py")
        dataset = member(group, name)
        if not isinstance(dataset, h5py.Dataset):
            raise TypeError(f"{name} is no data set")
        stored, layout = dataset.id.get_type(), dataset.id.get_create_plist()
        plain = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.STRING)  # ENUM: booleans
        if stored.get_class() not in plain or dataset.dtype.kind not in kinds:
            raise TypeError(f"{name} has values of another kind")
        if dataset.shape is None or layout.get_layout() != h5py.h5d.CONTIGUOUS or layout.get_external_count():
            raise ValueError(f"the values of {name} are not in the file in one piece")
        place, needed = dataset.id.get_offset(), _bytes(dataset)
        if needed and (place is None or place + needed > self._size):
            raise ValueError(f"the values of {name} are not in the file")
        return dataset


def member(group: Any, name: str) -> Any:
    """What has a name in a group, by a hard link. Raises LookupError: there is none; TypeError: it is another link."""
    h5py = require("h5py")
    if not isinstance(group, h5py.Group):
        raise TypeError(f"{name} is in something that is no group")
    links, key = group.id.links, name.encode()  # h5py's own `in` and `get` follow a link to see where it leads
    if not links.exists(key):
        raise LookupError(f"there is no {name}")
    if links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise TypeError(f"{name} is a link to elsewhere")
    return group[name]


def text(holder: Any, name: str) -> str:
    """An attribute that is text. Raises LookupError: it is not there; TypeError: it is something else, or too long."""
    h5py = require("h5py")
    if name not in holder.attrs:
        raise LookupError(f"there is no {name}")
    stored = holder.attrs.get_id(name)
    kind = stored.get_type()
    if stored.shape != () or kind.get_class() != h5py.h5t.STRING or not kind.is_variable_str():
        raise TypeError(f"{name} is no text")
    value = holder.attrs[name]
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise TypeError(f"{name} is no text of at most {MOST_TEXT:,} characters")
    return value


def integer(holder: Any, name: str) -> int:
    """An attribute that is an integer. Raises as `text`."""
    h5py = require("h5py")
    if name not in holder.attrs:
        raise LookupError(f"there is no {name}")
    stored = holder.attrs.get_id(name)
    if stored.shape != () or stored.get_type().get_class() != h5py.h5t.INTEGER:
        raise TypeError(f"{name} is no integer")
    return int(holder.attrs[name])


def _bytes(dataset: Any) -> int:
    return int(dataset.dtype.itemsize) * math.prod(map(int, dataset.shape))
