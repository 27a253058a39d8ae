"""CIFAR-FS: the hundred classes of CIFAR-100 with 600 images each, 64 to train, 16 to validate and 20 to test.

By Bertinetto et al., "Meta-learning with differentiable closed-form solvers" (2019). RGB, 32 x 32, as stored.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tasks import imageset, splits
from tinymaml.tasks.archive import DataError, Files, Limits, Report, open_files, progress_counter
from tinymaml.tasks.folder import batches, by_class
from tinymaml.tasks.image_decoding import decode

Array = np.ndarray[Any, np.dtype[Any]]

NAMES = {"train": "train", "validation": "val", "test": "test"}  # of the archives and folders
SIZE, IMAGES = 32, 600
# What the files give that the project's own figures were made with.
CONTENT = "66fdc9c20bc28306ab66ee6d68faa5daf920f1a335e99371302786d7656eb63b"
_LIMITS = Limits(files=50_000, each=1 << 16, total=1 << 28)


def prepare(source: Path, target: Path, *, report: Report | None = None) -> str:
    """Make the data set; returns the hash of its content.

    Args:
        source: a folder with `cifar_fs_train.zip`, `cifar_fs_val.zip` and `cifar_fs_test.zip` (taken first), or with
            the folders `train`, `val` and `test`; in each a folder for every class, with its 600 images as PNG.
        target: the HDF5 file.
        report: called with the number of images done and of all.

    Raises:
        DataError: a class or an image is missing, unknown, of a wrong kind or damaged; nothing is written.
        MissingExtra: h5py or Pillow is not installed.
    """
    classes = splits.load("cifar_fs")
    tick = progress_counter(sum(map(len, classes.values())) * IMAGES, report)
    with contextlib.ExitStack() as opened:
        parts: dict[str, imageset.Part] = {}
        for split, expected in classes.items():
            files = opened.enter_context(_open(source, NAMES[split]))
            images = by_class(files, NAMES[split])
            if list(images) != expected:
                differ = sorted(set(images) ^ set(expected))
                what = "is missing" if differ[0] in expected else "does not belong there"
                raise DataError(f"{files.path}: the class {differ[0]} {what}")
            for label, names in images.items():
                if len(names) != IMAGES:
                    raise DataError(f"{files.path}: {label} has {len(names)} images, not {IMAGES}")
            parts[split] = imageset.Part(
                expected, [IMAGES] * len(expected), batches(files, images.values(), _convert, tick)
            )
        recipe = {
            "source": "CIFAR-FS (Bertinetto et al. 2019)",
            "split": "cifar_fs",
            "split_sha256": splits.digest(classes),
            "resample": "none",
        }
        return imageset.write(target, "cifar_fs", parts, (SIZE, SIZE, 3), recipe)


def _open(source: Path, name: str) -> Files:
    for path in (source / f"cifar_fs_{name}.zip", source / name):
        if path.exists():
            return open_files(path, _LIMITS)
    raise DataError(f"{source} has neither cifar_fs_{name}.zip nor a folder {name}")


def _convert(files: Files, name: str) -> Array:
    picture = decode(files.read(name), files.where(name), formats=("PNG",), size=(SIZE, SIZE))
    if picture.mode != "RGB":
        raise DataError(f"{files.where(name)} is an image of the kind {picture.mode}, not RGB")
    return np.asarray(picture)
