"""Omniglot as one small file, to be carried to a machine with a GPU: its pixels are bits, 3.2 MB in all."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from tinymaml.tasks import imageset

SPLITS = ("train", "validation", "test")


def pack(prepared: Path, path: Path) -> None:
    """Write a prepared set of binary images as bits. Raises ValueError if its images are not binary."""
    header = imageset.describe(prepared)
    arrays = {"header": np.array(json.dumps(header))}
    for split in SPLITS:
        part = imageset.read(prepared, split)
        if not part.binary:
            raise ValueError(f"{prepared}: only binary images are packed as bits")
        arrays |= {
            f"{split}_bits": np.packbits(part.images > 0),
            f"{split}_first": part.first,
            f"{split}_classes": np.array(part.classes),
        }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def unpack(path: Path, folder: Path) -> Path:
    """The prepared set again, in a folder. Raises ValueError if it is not what was packed."""
    with np.load(path, allow_pickle=False) as arrays:
        header = json.loads(str(arrays["header"]))
        shape = tuple(header["shape"])
        parts = {}
        for split in SPLITS:
            first = arrays[f"{split}_first"]
            count = int(first[-1])
            bits = np.unpackbits(arrays[f"{split}_bits"], count=count * math.prod(shape))
            images = (bits * np.uint8(255)).reshape(count, *shape)
            classes = [images[a:b] for a, b in pairwise(first)]
            parts[split] = imageset.Part(arrays[f"{split}_classes"].tolist(), np.diff(first).tolist(), classes)
    folder.mkdir(parents=True, exist_ok=True)
    prepared = folder / f"{header['name']}.h5"
    content = imageset.write(prepared, header["name"], parts, shape, header["recipe"], binary=True)
    if content != header["content"]:
        raise ValueError(f"{path} is damaged: its images are not those that were packed")
    return prepared
