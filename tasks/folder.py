"""A data set of the user's: a folder or a zip archive of `CLASS/IMAGE` or `SPLIT/CLASS/IMAGE`, images of any size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tasks import imageset, splits
from tinymaml.tasks.archive import DataError, Files, Limits, Report, open_files, progress_counter
from tinymaml.tasks.extras import require
from tinymaml.tasks.image_decoding import decode
from tinymaml.tasks.reading import one_line

Array = np.ndarray[Any, np.dtype[Any]]
Convert = Callable[[Files, str], Array]
Classes = dict[str, list[str]]  # names of the images of each class

FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
RESAMPLINGS = ("bilinear", "lanczos", "nearest")
ENDINGS = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")  # whatever the ending: ImageNet has PNG images that are called .JPEG
_LIMITS = Limits(files=1_000_000, each=1 << 26, total=1 << 36)
_TREES = "CLASS/IMAGE, or train, val and test with CLASS/IMAGE in each"
LONGEST_NAME = 100  # characters, as it is a file's name, too
_IMAGE, _CLASS = 1 << 26, 1 << 31  # bytes of an image, and of a class's, which are in memory at a time


def prepare(
    source: Path,
    target: Path,
    name: str,
    size: tuple[int, int],
    *,
    grey: bool = False,
    resample: str = "bilinear",
    split: Sequence[float] | None = None,
    split_seed: int = 0,
    report: Report | None = None,
) -> str:
    """Make the data set; returns the hash of its content.

    Args:
        source: a folder or a zip archive with a folder for every class, in each of those its images: PNG or JPEG, of
            at most eight bits a channel. Or with `train`, `val` (or `validation`) and `test`, and in these the classes.
        target: the HDF5 file.
        name: of the data set.
        size: (height, width) that every image is resized to, whatever its shape.
        grey: one channel instead of three. Transparency is dropped, rotation by EXIF is not applied.
        resample: one of `RESAMPLINGS`.
        split: shares of the classes for train, validation and test, if the source has no such folders. The classes are
            divided by a hash of their names, see `splits.by_hash`; shares and seed are written into the recipe.
        split_seed: of that hash.
        report: called with the number of images done and of all.

    Raises:
        DataError: a file or folder is missing, empty, damaged or out of place, or a class is in two splits; nothing is
            written.
        ValueError: the name, the size, the resampling or the split is none, the split is missing, or there is one
            already; or the images would be too large.
        MissingExtra: h5py or Pillow is not installed.
    """
    shape = (*size, 1 if grey else 3)
    _check_settings(name, shape, resample, split)
    with open_files(source, _LIMITS) as files:
        images = _by_split(files) if split is None else _by_hash(files, split, split_seed)
        _check_sizes(images, shape)
        recipe = {
            "source": "a folder of images",
            "size": list(size),
            "mode": "L" if grey else "RGB",
            "resample": resample,
            "pillow": require("PIL").__version__,
        }
        if split is not None:
            classes = {part: list(labels) for part, labels in images.items()}
            recipe |= {"split": {"shares": list(split), "seed": split_seed}, "split_sha256": splits.digest(classes)}
        convert = resizer(size, recipe["mode"], resample)
        tick = progress_counter(sum(len(names) for labels in images.values() for names in labels.values()), report)
        parts = {
            part: imageset.Part(
                list(labels),
                [len(names) for names in labels.values()],
                batches(files, labels.values(), convert, tick),
            )
            for part, labels in images.items()
        }
        return imageset.write(target, name, parts, shape, recipe)


def _check_settings(name: str, shape: tuple[int, int, int], resample: str, split: Sequence[float] | None) -> None:
    """Raises ValueError for what can be refused before anything is read."""
    if re.fullmatch(r"\w[\w.-]*", name) is None or len(name) > LONGEST_NAME:
        raise ValueError(
            f"name must be of letters, digits, '_', '-' and '.', at most {LONGEST_NAME}, got {one_line(repr(name))}"
        )
    height, width, _ = shape
    if resample not in RESAMPLINGS or min(height, width) < 1:
        raise ValueError(
            f"resample must be one of {', '.join(RESAMPLINGS)}, size positive; got {resample}, {(height, width)}"
        )
    if math.prod(shape) > _IMAGE:
        raise ValueError(
            f"size: images of {height} x {width} would have {math.prod(shape):,} bytes each, more than the "
            f"{_IMAGE:,} allowed"
        )
    if split is not None:
        splits.check_shares(split)


def _check_sizes(images: Mapping[str, Classes], shape: tuple[int, int, int]) -> None:
    """Raises ValueError if the images of a class would be too large."""
    for label, names in (pair for classes in images.values() for pair in classes.items()):
        size = len(names) * math.prod(shape)
        if size > _CLASS:
            raise ValueError(
                f"size: the {len(names):,} images of {one_line(label)} would have {size:,} bytes at "
                f"{shape[0]} x {shape[1]}, more than the {_CLASS:,} allowed"
            )


def _has_splits(files: Files) -> bool:
    """Whether there is CLASS/IMAGE in one of the folders train, val and test. Raises DataError if there is nothing."""
    if not files.names:
        raise DataError(f"{files.path} has no images: expected {_TREES}")
    return any(name.count("/") > 1 and name.partition("/")[0] in FOLDERS for name in files.names)


def _by_hash(files: Files, shares: Sequence[float], seed: int) -> dict[str, Classes]:
    """The images of every class of every split, from CLASS/IMAGE."""
    if _has_splits(files):
        raise ValueError(f"split: {files.path} has train, val and test already, and is to be divided no further")
    images = _classes(files, files.names, "", _TREES)
    parts = splits.by_hash(images, shares, seed)
    return {part: {label: images[label] for label in labels} for part, labels in parts.items()}


def _by_split(files: Files) -> dict[str, Classes]:
    """The images of every class of every split, from train, val and test."""
    if not _has_splits(files):
        _classes(files, files.names, "", _TREES)  # raises for a tree that is neither
        raise ValueError(
            f"split: {files.path} has no train, val and test: give their shares of its classes, as in --split .6 .2 .2"
        )
    seen: dict[str, str] = {}
    for name in files.names:
        top = name.partition("/")[0]
        split = FOLDERS.get(top)
        if split is None:
            raise DataError(f"{files.where(name)} is out of place: expected train, val and test, in them CLASS/IMAGE")
        if seen.setdefault(split, top) != top:
            raise DataError(f"{files.path} has both {seen[split]} and {top}")
    missing = sorted(set(FOLDERS.values()) - set(seen))
    if missing:
        raise DataError(f"{files.path} has no images for {', '.join(missing)}: expected train, val and test in it")
    return {split: by_class(files, top) for split, top in sorted(seen.items())}


def by_class(files: Files, top: str) -> Classes:
    """Sorted names of the images of every class, of those whose names begin with `top/`, or of all if none does.

    Raises:
        DataError: a name is not that of an image in a class's folder.
    """
    inside = [name for name in files.names if name.startswith(f"{top}/")]
    return _classes(files, inside, f"{top}/") if inside else _classes(files, files.names, "")


def _classes(files: Files, names: Iterable[str], prefix: str, expected: str = "CLASS/IMAGE") -> Classes:
    """The names, which are CLASS/IMAGE after a prefix, by their classes. Raises as `by_class`."""
    classes: Classes = {}
    for name in names:
        parts = name.removeprefix(prefix).split("/")
        if len(parts) != 2 or ending(name) not in ENDINGS:
            raise DataError(f"{files.where(name)} is out of place: expected {expected}, a {' or '.join(ENDINGS)}")
        classes.setdefault(parts[0], []).append(name)
    return dict(sorted(classes.items()))


def ending(name: str) -> str:
    """A name's ending, such as `.png`, in small letters."""
    return Path(name).suffix.lower()


def resizer(size: tuple[int, int], mode: str, resample: str) -> Convert:
    """What makes uint8 [H, W, C] of a file."""
    method = require("PIL.Image").Resampling[resample.upper()]
    height, width = size

    def convert(files: Files, name: str) -> Array:
        picture = decode(files.read(name), files.where(name), formats=FORMATS)
        if picture.mode == "P":  # a palette may have transparent colours, of which the next step would warn
            picture = picture.convert("RGBA")
        picture = picture.convert(mode)
        if picture.size != (width, height):
            picture = picture.resize((width, height), method)
        return np.asarray(picture).reshape(height, width, -1)

    return convert


def batches(
    files: Files, classes: Iterable[list[str]], convert: Convert, tick: Callable[[int], None]
) -> Iterator[Array]:
    """The images of each class, uint8 [count, H, W, C]."""
    for names in classes:
        yield np.stack([convert(files, name) for name in names])
        tick(len(names))
