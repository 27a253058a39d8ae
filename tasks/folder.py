"""A data set of one's own: `SPLIT/CLASS/IMAGE`, a folder or a zip archive, with images of any size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tasks import imageset
from tinymaml.tasks.archive import DataError, Files, Limits, Report, open_files, progress_counter
from tinymaml.tasks.extras import require
from tinymaml.tasks.image_decoding import decode
from tinymaml.tasks.reading import one_line

Array = np.ndarray[Any, np.dtype[Any]]
Convert = Callable[[Files, str], Array]

FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
RESAMPLINGS = ("bilinear", "lanczos", "nearest")
ENDINGS = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")  # whatever the ending: ImageNet has PNG images that are called .JPEG
_LIMITS = Limits(files=1_000_000, each=1 << 26, total=1 << 36)
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
    report: Report | None = None,
) -> str:
    """Make the data set; returns the hash of its content.

    Args:
        source: a folder or a zip archive with `train`, `val` (or `validation`) and `test`, in each a folder for every
            class, in each of those its images: PNG or JPEG, of at most eight bits a channel.
        target: the HDF5 file.
        name: of the data set.
        size: (height, width) that every image is resized to, whatever its shape.
        grey: one channel instead of three. Transparency is dropped, rotation by EXIF is not applied.
        resample: one of `RESAMPLINGS`.
        report: called with the number of images done and of all.

    Raises:
        DataError: a file or folder is missing, empty, damaged or out of place, or a class is in two splits; nothing is
            written.
        ValueError: the name, the size or the resampling is none, or the images would be too large.
        MissingExtra: h5py or Pillow is not installed.
    """
    if re.fullmatch(r"\w[\w.-]*", name) is None or len(name) > LONGEST_NAME:
        raise ValueError(
            f"name must be of letters, digits, '_', '-' and '.', at most {LONGEST_NAME}, got {one_line(repr(name))}"
        )
    if resample not in RESAMPLINGS or min(size) < 1:
        raise ValueError(f"resample must be one of {', '.join(RESAMPLINGS)}, size positive; got {resample}, {size}")
    each = size[0] * size[1] * (1 if grey else 3)
    if each > _IMAGE:
        raise ValueError(
            f"size: images of {size[0]} x {size[1]} would have {each:,} bytes each, more than the {_IMAGE:,} allowed"
        )
    with open_files(source, _LIMITS) as files:
        splits = _by_split(files)
        for label, names in (pair for classes in splits.values() for pair in classes.items()):
            if len(names) * each > _CLASS:
                raise ValueError(
                    f"size: the {len(names):,} images of {one_line(label)} would have {len(names) * each:,} bytes at "
                    f"{size[0]} x {size[1]}, more than the {_CLASS:,} allowed"
                )
        recipe = {
            "source": "a folder of images",
            "size": list(size),
            "mode": "L" if grey else "RGB",
            "resample": resample,
            "pillow": require("PIL").__version__,
        }
        convert = resizer(size, recipe["mode"], resample)
        tick = progress_counter(sum(len(names) for classes in splits.values() for names in classes.values()), report)
        parts = {
            split: imageset.Part(
                list(classes),
                [len(names) for names in classes.values()],
                batches(files, classes.values(), convert, tick),
            )
            for split, classes in splits.items()
        }
        return imageset.write(target, name, parts, (*size, 1 if grey else 3), recipe)


def _by_split(files: Files) -> dict[str, dict[str, list[str]]]:
    """Names of the images of every class of every split."""
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


def by_class(files: Files, top: str) -> dict[str, list[str]]:
    """Sorted names of the images of every class, of those whose names begin with `top/`, or of all if none does.

    Raises:
        DataError: a name is not that of an image in a class's folder.
    """
    inside = [name for name in files.names if name.startswith(f"{top}/")]
    classes: dict[str, list[str]] = {}
    for name in inside or files.names:
        parts = name.removeprefix(f"{top}/").split("/")
        if len(parts) != 2 or ending(name) not in ENDINGS:
            raise DataError(f"{files.where(name)} is out of place: expected CLASS/IMAGE, a {' or '.join(ENDINGS)}")
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
