"""Omniglot: 1623 characters of 50 alphabets, each drawn by 20 people (Lake, Salakhutdinov and Tenenbaum 2015).

The files are PNG images of one bit, 105 x 105. For such images Pillow takes the nearest pixel whatever filter it is
asked for, so that the authors' "Lanczos" images are binary; that is the default here. Turned to grey first they can be
resampled by Lanczos, which gives another data set.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tasks import imageset, splits
from tinymaml.tasks.archive import DataError, Files, Limits, Report, download, open_files, progress_counter, sha256
from tinymaml.tasks.extras import require
from tinymaml.tasks.image_decoding import decode

Array = np.ndarray[Any, np.dtype[Any]]

PARTS = ("images_background", "images_evaluation")
ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
# Bytes and SHA-256 of the authors' archives. What is in an archive, or a folder, is checked in any case.
ARCHIVES = {
    "images_background": (9_464_212, "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"),
    "images_evaluation": (6_462_886, "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"),
}
SPLITS = {"fixed": "omniglot", "vinyals": "omniglot-vinyals"}
RESAMPLINGS = ("nearest", "lanczos")

SIZE, DRAWN, IMAGES = 28, (105, 105), 20
_LIMITS = Limits(files=25_000, each=1 << 16, total=1 << 25)
_NAME = re.compile(r"([^/]+)/(character\d\d)/(\d{4}_\d\d)\.png")


def fetch(folder: Path, report: Report | None = None) -> None:
    """Download the two archives into a folder, those that are not there yet.

    Raises:
        DataError: what came, or what is there, is not the authors' archive.
        OSError: it cannot be had.
    """
    for part, (size, expected) in ARCHIVES.items():
        path = folder / f"{part}.zip"
        if not path.exists():
            download(f"{ADDRESS}{part}.zip", path, size, expected, report)
        elif sha256(path) != expected:
            raise DataError(f"{path} is not the authors' archive: prepare it with --from {folder}, or take it away")


def prepare(
    source: Path, target: Path, *, split: str = "fixed", resample: str = "nearest", report: Report | None = None
) -> str:
    """Make the data set; returns the hash of its content.

    Args:
        source: a folder with `images_background` and `images_evaluation`, as zip archives (taken first) or unpacked.
        target: the HDF5 file.
        split: "fixed" (1100 / 100 / 423 characters, by hash) or "vinyals" (1028 / 172 / 423, by alphabet).
        resample: "nearest" (binary) or "lanczos" (grey).
        report: called with the number of images done and of all.

    Images are uint8 [28, 28, 1] with ink 255 on 0.

    Raises:
        DataError: a file is missing, unknown, damaged, or not Omniglot's; nothing is written.
        MissingExtra: h5py or Pillow is not installed.
    """
    if split not in SPLITS or resample not in RESAMPLINGS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, resample one of {', '.join(RESAMPLINGS)}")
    classes = splits.load(SPLITS[split])
    known: dict[str, str] = splits.content("omniglot-files")["sha256"]
    tick = progress_counter(sum(map(len, classes.values())) * IMAGES, report)
    images: dict[str, Array] = {}
    for part in PARTS:
        with _open(source, part) as files:
            for character, batch in _characters(files, part, known, resample):
                images[character] = batch
                tick(IMAGES)
    recipe = {
        "source": "Omniglot (Lake et al. 2015), images_background and images_evaluation",
        "files": hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest(),
        "split": SPLITS[split],
        "split_sha256": splits.digest(classes),
        "resample": resample,
        "values": "ink 255, paper 0",
        "pillow": require("PIL").__version__,
    }
    parts = {
        key: imageset.Part(names, [IMAGES] * len(names), (images[name] for name in names))
        for key, names in classes.items()
    }
    return imageset.write(target, "omniglot", parts, (SIZE, SIZE, 1), recipe, binary=resample == "nearest")


def _open(source: Path, part: str) -> Files:
    for path in (source / f"{part}.zip", source / part):
        if path.exists():
            return open_files(path, _LIMITS)
    raise DataError(f"{source} has neither {part}.zip nor a folder {part}; --download fetches them")


def _characters(files: Files, part: str, known: dict[str, str], resample: str) -> Iterator[tuple[str, Array]]:
    """Every character of an archive with its images, uint8 [20, 28, 28, 1]; the files are held to the known hashes."""
    drawings = _drawings(files, part)
    for place, expected in known.items():
        archive, alphabet = place.split("/")
        if archive != part:
            continue
        digest = hashlib.sha256()
        for character in sorted(name for name in drawings if name.startswith(f"{alphabet}/")):
            batch = np.empty((IMAGES, SIZE, SIZE, 1), np.uint8)
            names = drawings.pop(character)
            if len(names) != IMAGES:
                raise DataError(f"{files.path}: {character} has {len(names)} images, not {IMAGES}")
            for i, name in enumerate(names):
                data = files.read(name)
                digest.update(f"{'/'.join(name.split('/')[-2:])}\0{len(data)}\0".encode() + data)
                batch[i, ..., 0] = _shrink(decode(data, files.where(name), formats=("PNG",), size=DRAWN), resample)
            yield character, batch
        if digest.hexdigest() != expected:
            raise DataError(
                f"{files.path}: the files of {alphabet} are not Omniglot's, or some are missing: "
                f"their SHA-256 is {digest.hexdigest()}, expected {expected}"
            )
    if drawings:
        raise DataError(f"{files.path} has a character that is not Omniglot's: {min(drawings)}")


def _drawings(files: Files, part: str) -> dict[str, list[str]]:
    """Sorted names of the files of every character. In an archive they begin with its name, below a folder not."""
    drawings: dict[str, list[str]] = {}
    for name in files.names:
        match = _NAME.fullmatch(name.removeprefix(f"{part}/"))
        if match is None:
            raise DataError(f"{files.where(name)} is no file of Omniglot")
        drawings.setdefault(f"{match[1]}/{match[2]}", []).append(name)
    return drawings


def _shrink(picture: Any, resample: str) -> Array:
    """uint8 [28, 28] with ink 255, from an image whose ink is 0."""
    image = require("PIL.Image")
    if resample == "nearest":
        paper = np.asarray(picture.resize((SIZE, SIZE), image.Resampling.NEAREST)).astype(bool)
        return np.where(paper, np.uint8(0), np.uint8(255))
    return 255 - np.asarray(picture.convert("L").resize((SIZE, SIZE), image.Resampling.LANCZOS))
