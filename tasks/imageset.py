"""Sets of labelled images: one HDF5 file a data set, whole or refused, read into memory or mapped.

A file is ordinary HDF5 behind a block by which it is checked (`checksum_block.py`). For each split there is a group
with

    images   uint8 [M, H, W, C], in one piece, class after class
    first    int64 [classes + 1]: the images of class c are first[c] to first[c + 1]
    classes  the names of the classes
    sha256   uint8 [classes, 32]: of each class's images

and the file's attribute `header` is JSON: the set's name, its recipe, the shape of an image, the hash of each split
(over its names, numbers and class hashes) and that of the content (over those of the splits).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymaml.tasks import hdf5
from tinymaml.tasks.atomic_files import replacing
from tinymaml.tasks.checksum_block import BLOCK, check_block, write_block
from tinymaml.tasks.extras import MissingExtra, require
from tinymaml.tasks.random_streams import SPLITS
from tinymaml.tasks.reading import DataError, open_file, parse_json

Array = np.ndarray[Any, np.dtype[Any]]

# The commands that make the files known by name.
COMMANDS = {
    "omniglot": "omniglot --from FOLDER",
    "omniglot-vinyals": "omniglot --split vinyals --from FOLDER",
    "omniglot-lanczos": "omniglot --resample lanczos --from FOLDER",
    "omniglot-vinyals-lanczos": "omniglot --split vinyals --resample lanczos --from FOLDER",
    "miniimagenet": "miniimagenet --from FOLDER",
    "cifar_fs": "cifar_fs --from FOLDER",
}


class ImageSet(NamedTuple):
    """The images of one split."""

    name: str
    split: str  # train, validation or test
    images: Array  # uint8 [M, H, W, C], not writeable; ordinary indexing, lazy or not
    first: Array  # int64 [classes + 1]: images of class c are first[c] to first[c + 1]
    classes: list[str]
    binary: bool  # all values are 0 or 255


class Part(NamedTuple):
    """A split to be written."""

    classes: Sequence[str]
    counts: Sequence[int]  # of images, for each class
    images: Iterable[Array]  # for each class uint8 [count, H, W, C]


def default_path(name: str) -> Path:
    """Where a prepared data set lies: $TINYMAML_DATA/name.h5, or data/name.h5."""
    return Path(os.environ.get("TINYMAML_DATA") or "data") / f"{name}.h5"


def write(
    path: Path,
    name: str,
    parts: Mapping[str, Part],
    shape: tuple[int, int, int],
    recipe: Mapping[str, Any],
    *,
    binary: bool = False,
) -> str:
    """Write a data set; under its name the file is whole or not there. Returns the hash of its content.

    Args:
        path: of the file.
        name: of the data set.
        parts: for each split its classes and images, which are taken one class at a time.
        shape: (height, width, channels) of every image.
        recipe: how it was made, as JSON can hold it.
        binary: whether all values are 0 or 255.

    Raises:
        DataError: a class is there twice, in one split or in two, or without images; images of a wrong kind or number.
        MissingExtra: h5py is not installed.
    """
    h5py = require("h5py")
    _check(name, parts)
    hashes: dict[str, str] = {}
    with replacing(path) as temporary:
        # In the earliest format groups have no times, which would differ from file to file.
        # HDF5's own lock would meet the one that the file has already.
        how = {"userblock_size": BLOCK, "libver": ("earliest", "v110"), "track_order": False, "locking": False}
        with h5py.File(temporary, "w", **how) as file:
            for split, part in parts.items():
                hashes[split] = _write_part(file.create_group(split), part, shape, binary)
            stored = [file[split]["images"] for split in parts]
            places = [(images.id.get_offset(), images.nbytes) for images in stored]
            header = {"name": name, "binary": binary, "shape": list(shape), "recipe": dict(recipe)}
            header |= {"splits": hashes, "content": _content(hashes)}
            file.attrs["header"] = json.dumps(header, sort_keys=True)
        write_block(temporary, places)
    return _content(hashes)


def _check(name: str, parts: Mapping[str, Part]) -> None:
    if not parts or not set(parts) <= set(SPLITS):
        raise DataError(f"{name}: splits must be some of {', '.join(SPLITS)}, got {', '.join(parts) or 'none'}")
    owner: dict[str, str] = {}
    for split, part in parts.items():
        if not part.classes or len(part.classes) != len(part.counts):
            raise DataError(f"{name}: {split} has {len(part.classes)} classes and {len(part.counts)} counts of images")
        for label, count in zip(part.classes, part.counts, strict=True):
            if label in owner:
                both = f"twice in {split}" if owner[label] == split else f"in both {owner[label]} and {split}"
                raise DataError(f"{name}: the class {label} is {both}")
            if not label or "\0" in label:
                raise DataError(f"{name}: a class of {split} has the name {label!r}")
            if count < 1:
                raise DataError(f"{name}: the class {label} of {split} has no images")
            owner[label] = split


def _write_part(group: Any, part: Part, shape: tuple[int, int, int], binary: bool) -> str:
    first = np.concatenate([[0], np.cumsum(part.counts)]).astype(np.int64)
    images = group.create_dataset("images", (int(first[-1]), *shape), np.uint8, track_times=False)
    digests = np.empty((len(part.classes), 32), np.uint8)
    for c, (label, batch) in enumerate(zip(part.classes, part.images, strict=True)):
        if batch.dtype != np.uint8 or batch.shape != (part.counts[c], *shape):
            raise DataError(f"{label}: images of {batch.dtype}{batch.shape}, not uint8{(part.counts[c], *shape)}")
        if binary and not ((batch == 0) | (batch == 255)).all():
            raise DataError(f"{label}: a binary image has a value that is neither 0 nor 255")
        images[first[c] : first[c + 1]] = batch
        digests[c] = _digest(batch)
    group.create_dataset("first", data=first, track_times=False)
    group.create_dataset("classes", data=np.array([label.encode() for label in part.classes]), track_times=False)
    group.create_dataset("sha256", data=digests, track_times=False)
    return _split_hash(part.classes, first, digests, shape)


def _digest(images: Array) -> Array:
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(images).data).digest(), np.uint8)


def _split_hash(classes: Sequence[str], first: Array, digests: Array, shape: Sequence[int]) -> str:
    text = json.dumps([list(classes), first.tolist(), list(shape)])
    return hashlib.sha256(text.encode() + digests.tobytes()).hexdigest()


def _content(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(hashes), sort_keys=True).encode()).hexdigest()


def read(path: Path, split: str, lazy: bool = False) -> ImageSet:
    """One split of a data set.

    Args:
        path: of the file.
        split: train, validation or test.
        lazy: map the images instead of reading them; they are read from the disk where and when they are used.

    The hashes are checked once, here: of all that is read; with `lazy` of everything but the images, and of the images
    of three classes, the first, the last and one between.

    Raises:
        FileNotFoundError: the file is not there; the message names the command that makes it.
        DataError: it is damaged, of another kind, made by a newer version, or has no such split.
        MissingExtra: h5py is not installed.
    """
    with _opened(path) as (file, header):
        if split not in header["splits"]:
            raise DataError(f"{path} has no split {split!r}: it has {', '.join(header['splits'])}")
        return _read_part(path, hdf5.member(file, split), header, split, lazy)


def describe(path: Path) -> dict[str, Any]:
    """A file's header: name, binary, shape, recipe, the hash of each split, and that of the content; and `classes`, the
    names of each split's.

    Raises: as `read`.
    """
    with _opened(path) as (file, header):
        reader = hdf5.Reader(path.stat().st_size)
        parts = [split for split in SPLITS if split in header["splits"]]
        indices = [_read_index(reader, hdf5.member(file, split), header, split) for split in parts]
        return header | {"classes": {split: index.classes for split, index in zip(parts, indices, strict=True)}}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The file, of which all but the images was checked, and its header."""
    h5py = require("h5py")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: {_again(path)}")
    check_block(path, _again(path))
    # The checksum says that all is as it was written; the rest is for files made to deceive, for which HDF5 raises all
    # kinds.
    try:
        with open_file(path) as opened, h5py.File(hdf5.Guarded(opened), "r") as file:
            yield file, _header(file)
    except (DataError, MissingExtra):
        raise
    except Exception as error:
        raise DataError(f"{path} is not a data set of this program: {error}; {_again(path)}") from error


def _header(file: Any) -> dict[str, Any]:
    """Raises ValueError or what `hdf5.text` does: it is not as `write` makes it."""
    header = parse_json(hdf5.text(file, "header"))
    kinds = {"name": str, "binary": bool, "shape": list, "recipe": dict, "splits": dict, "content": str}
    if not isinstance(header, dict) or {key: type(value) for key, value in header.items()} != kinds:
        raise ValueError(f"its header has not just {', '.join(kinds)}")
    if len(header["shape"]) != 3 or any(type(side) is not int or side < 1 for side in header["shape"]):
        raise ValueError(f"its images have the shape {header['shape']}")
    if not header["splits"] or not set(header["splits"]) <= set(SPLITS):
        raise ValueError(f"its splits are {', '.join(header['splits']) or 'none'}")
    if header["content"] != _content(header["splits"]):
        raise ValueError("its content does not fit its hash")
    return header


def _again(path: Path) -> str:
    command = COMMANDS.get(path.stem, f"folder --name {path.stem} --from FOLDER")
    out = "" if path == default_path(path.stem) else f" --out {path}"
    return f"tinymaml data {command}{out} makes it"


class _Index(NamedTuple):
    """What a split's group holds, but for the images' values."""

    first: Array
    digests: Array
    classes: list[str]
    images: Any  # the data set


def _read_index(reader: hdf5.Reader, group: Any, header: dict[str, Any], split: str) -> _Index:
    """Raises ValueError or what `hdf5.Reader` does: it is not as `write` makes it."""
    first, digests = reader.array(group, "first", "i"), reader.array(group, "sha256", "u")
    names, shape = reader.array(group, "classes", "S"), tuple(header["shape"])
    stored = reader.dataset(group, "images", "u")
    kinds = [(first.dtype, first.shape), (digests.dtype, digests.shape), (stored.dtype, stored.shape[1:])]
    if names.ndim != 1 or kinds != [(np.int64, (len(names) + 1,)), (np.uint8, (len(names), 32)), (np.uint8, shape)]:
        raise ValueError(f"the data sets of {split} do not fit each other")
    if not len(names) or first[0] != 0 or first[-1] != len(stored) or (np.diff(first) < 1).any():
        raise ValueError(f"the classes of {split} have not all images between them")
    classes = [name.decode() for name in names.tolist()]
    if _split_hash(classes, first, digests, shape) != header["splits"][split]:
        raise ValueError(f"the classes of {split} do not fit their hash")
    return _Index(first, digests, classes, stored)


def _read_part(path: Path, group: Any, header: dict[str, Any], split: str, lazy: bool) -> ImageSet:
    reader = hdf5.Reader(path.stat().st_size)
    first, digests, classes, stored = _read_index(reader, group, header, split)
    if lazy:
        images = np.asarray(np.memmap(path, np.uint8, "r", stored.id.get_offset(), stored.shape))
    else:
        images = reader.array(group, "images", "u")
    for c in {0, len(classes) // 2, len(classes) - 1} if lazy else range(len(classes)):
        if not np.array_equal(_digest(images[first[c] : first[c + 1]]), digests[c]):
            raise DataError(f"{path} is damaged: the images of {classes[c]} do not fit their hash; {_again(path)}")
    images.flags.writeable = False
    return ImageSet(header["name"], split, images, first, classes, header["binary"])
