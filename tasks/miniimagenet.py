"""MiniImagenet: 100 classes of ImageNet with 600 images each, from the user's own copy (the images are not free).

The split is Ravi and Larochelle's (2017): 64 classes to train, 16 to validate, 20 to test. Images are resized to
84 x 84 RGB, whatever their shape; by Lanczos, as the authors of MAML did.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tasks import imageset, npz, splits
from tinymaml.tasks.archive import DataError, Files, Limits, Report, open_files, progress_counter
from tinymaml.tasks.extras import require
from tinymaml.tasks.folder import ENDINGS, batches, ending, resizer
from tinymaml.tasks.reading import read_file

Array = np.ndarray[Any, np.dtype[Any]]

RESAMPLINGS = ("lanczos", "bilinear")
SIZE, IMAGES = 84, 600
NAMES = {"train": "train", "validation": "val", "test": "test"}  # of CSV and npz files
_LIMITS = Limits(files=1_500_000, each=1 << 26, total=1 << 38)
_CACHE_LIMITS = Limits(files=100, each=1 << 31, total=1 << 31)
_MOST_CSV = 1 << 24
_WORDNET = re.compile(r"n\d{8}")


def prepare(
    source: Path,
    target: Path,
    *,
    lists: Path | None = None,
    resample: str = "lanczos",
    report: Report | None = None,
) -> str:
    """Make the data set; returns the hash of its content.

    Args:
        source: a folder or a zip archive of JPEG or PNG images, in whatever folders; or a folder with `train.npz`,
            `val.npz` and `test.npz`, each with `images` (uint8 [N, 84, 84, 3]) and `labels` ([N]).
        target: the HDF5 file.
        lists: a folder with the CSV files of the split, which name the 600 images of each class. Without it the class
            is told by the folder an image is in, or by the first nine letters of its name, such as n01532829, and
            there have to be 600 of each class.
        resample: "lanczos" or "bilinear".
        report: called with the number of images done and of all.

    Raises:
        DataError: a file is missing, there twice, damaged or a pickle, or a class has not 600 images; nothing is
            written.
        MissingExtra: h5py or Pillow is not installed.
    """
    if resample not in RESAMPLINGS:
        raise ValueError(f"resample must be one of {', '.join(RESAMPLINGS)}, got {resample!r}")
    classes = splits.load("miniimagenet")
    tick = progress_counter(sum(map(len, classes.values())) * IMAGES, report)
    recipe = {"source": "MiniImagenet", "split": "miniimagenet", "split_sha256": splits.digest(classes)}
    if source.is_dir() and any(source.glob("*.npz")):
        recipe |= {"images": "a cache in npz files", "resample": "as in the cache"}
        parts = {split: _cached(source, split, names, tick) for split, names in classes.items()}
        return imageset.write(target, "miniimagenet", parts, (SIZE, SIZE, 3), recipe)
    with open_files(source, _LIMITS) as files:
        chosen = _listed(files, listed_images(lists, classes)) if lists else _all(files, classes)
        recipe |= {
            "images": "those in the split's CSV files" if lists else "all 600 of each class",
            "resample": resample,
            "pillow": require("PIL").__version__,
        }
        convert = resizer((SIZE, SIZE), "RGB", resample)
        parts = {
            split: imageset.Part(
                names, [IMAGES] * len(names), batches(files, (chosen[label] for label in names), convert, tick)
            )
            for split, names in classes.items()
        }
        return imageset.write(target, "miniimagenet", parts, (SIZE, SIZE, 3), recipe)


def listed_images(folder: Path, classes: dict[str, list[str]]) -> dict[str, list[str]]:
    """The file names of each class by the split's CSV files."""
    listed: dict[str, list[str]] = {}
    seen: set[str] = set()
    for split, expected in classes.items():
        path = _one(folder, [f"miniImagenet_ravi_{NAMES[split]}.csv", f"{NAMES[split]}.csv"])
        text = read_file(path, _MOST_CSV)
        try:
            rows = list(csv.reader(io.StringIO(text.decode(), newline="")))
        except (ValueError, csv.Error) as error:
            raise DataError(f"{path} is no CSV file: {error}") from error
        if not rows or rows[0] != ["filename", "label"] or any(len(row) != 2 for row in rows):
            raise DataError(f"{path}: expected the columns filename and label")
        for name, label in rows[1:]:
            if name in seen:
                raise DataError(f"{path} names {name} a second time")
            if label not in expected:
                raise DataError(f"{path}: the class {label} does not belong to {split} in Ravi and Larochelle's split")
            seen.add(name)
            listed.setdefault(label, []).append(name)
        _must_be_complete(path, listed, expected)
    return listed


def _one(folder: Path, names: list[str]) -> Path:
    for name in names:
        if os.path.lexists(folder / name):
            return folder / name
    raise DataError(f"{folder} has no {' or '.join(names)}")


def _must_be_complete(path: Path, images: dict[str, list[str]], expected: list[str]) -> None:
    for label in expected:
        count = len(images.get(label, ()))
        if count != IMAGES:
            raise DataError(f"{path}: the class {label} has {count} images, not {IMAGES}")


def _images(files: Files) -> list[str]:
    names = [name for name in files.names if ending(name) != ".csv"]
    for name in names:
        if ending(name) not in ENDINGS:
            raise DataError(f"{files.where(name)} is out of place: expected images, {' or '.join(ENDINGS)}")
    return names


def _listed(files: Files, listed: dict[str, list[str]]) -> dict[str, list[str]]:
    """The images that the CSV files name, wherever they are."""
    places: dict[str, str] = {}
    for name in _images(files):
        file = name.rpartition("/")[2]
        if file in places:
            raise DataError(f"{files.path} has {file} twice: {places[file]} and {name}")
        places[file] = name
    for names in listed.values():
        for file in names:
            if file not in places:
                raise DataError(f"{files.path} has no {file}, which the CSV files of the split name")
    return {label: [places[file] for file in names] for label, names in listed.items()}


def _all(files: Files, classes: dict[str, list[str]]) -> dict[str, list[str]]:
    """All images by class, which has 600 of them."""
    known = {label for names in classes.values() for label in names}
    images: dict[str, list[str]] = {}
    for name in _images(files):
        *folders, file = name.split("/")
        match = _WORDNET.match(file)
        label = folders[-1] if folders and folders[-1] in known else match[0] if match else ""
        if label not in known:
            raise DataError(f"{files.where(name)} is of no class of MiniImagenet by its folder or its name")
        images.setdefault(label, []).append(name)
    for expected in classes.values():
        _must_be_complete(files.path, images, expected)
    return images


def _cached(folder: Path, split: str, expected: list[str], tick: Callable[[int], None]) -> imageset.Part:
    """The images of an npz file. Numbered classes are named `train-00` and so on: nobody knows which they are."""
    path = _one(folder, [f"{NAMES[split]}.npz"])
    images, labels = npz.arrays(path, ["images", "labels"], _CACHE_LIMITS)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
        raise DataError(f"{path}: images are {images.dtype}{images.shape}, not uint8[N, {SIZE}, {SIZE}, 3]")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
        raise DataError(f"{path}: labels are {labels.dtype}{labels.shape}, expected a number or a name for each image")
    distinct, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    numbered = [f"{split}-{c:02}" for c in range(len(distinct))]
    names: list[str] = distinct.tolist() if labels.dtype.kind == "U" else numbered
    if len(names) != len(expected) or (labels.dtype.kind == "U" and names != expected):
        raise DataError(f"{path}: its {len(names)} classes are not the {len(expected)} of {split}")
    if (counts != IMAGES).any():
        wrong = int((counts != IMAGES).argmax())
        raise DataError(f"{path}: the class {distinct[wrong]} has {counts[wrong]} images, not {IMAGES}")
    order = np.argsort(which, kind="stable").reshape(-1, IMAGES)
    return imageset.Part(names, counts.tolist(), _gather(images, order, tick))


def _gather(images: Array, order: Array, tick: Callable[[int], None]) -> Iterator[Array]:
    for chosen in order:
        yield images[chosen]
        tick(len(chosen))
