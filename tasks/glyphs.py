"""Glyphs: characters that this program draws, so that few-shot classification needs no download.

A class is two to four strokes, parabolas through random points; each of its twenty drawings moves the points, slants,
scales and shifts the whole and takes a pen of its own. All is a function of the split and the class, computed with
operations whose rounding IEEE 754 fixes, so every machine draws the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tinymaml.tasks.imageset import ImageSet
from tinymaml.tasks.random_streams import SPLITS, uniform

Array = np.ndarray[Any, np.dtype[Any]]

CLASSES = {"train": 200, "validation": 50, "test": 100}
DRAWINGS, SIDE = 20, 28

_SEED = 1703  # of the characters: any number would do
_STROKES, _POINTS = 4, 24  # strokes at most, and points along each
_PER_CLASS = 1 + 6 * _STROKES + _STROKES  # numbers that make a class
_PER_DRAWING = 6 * _STROKES + 6  # numbers that make a drawing of it


@cache
def images(split: str) -> ImageSet:
    """The drawings of a split's classes: 28 x 28, 0 or 255. Raises ValueError if there is no such split."""
    if split not in CLASSES:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    count = CLASSES[split]
    drawn = np.concatenate([_draw(split, np.arange(c, min(c + 10, count))) for c in range(0, count, 10)])
    drawn = drawn.reshape(count * DRAWINGS, SIDE, SIDE, 1)
    drawn.flags.writeable = False
    first = np.arange(count + 1) * DRAWINGS
    return ImageSet("glyphs", split, drawn, first, [f"{split}-{c:03}" for c in range(count)], True)


def _draw(split: str, classes: Array) -> Array:
    """uint8 [classes, DRAWINGS, SIDE, SIDE]."""
    numbers = uniform(_SEED, split, classes, _PER_CLASS + DRAWINGS * _PER_DRAWING)
    of_class = numbers[:, :_PER_CLASS]
    of_drawing = numbers[:, _PER_CLASS:].reshape(len(classes), DRAWINGS, _PER_DRAWING)

    # The points that make a class's strokes, in a square around 0; most strokes begin where the one before ends.
    control = (of_class[:, 1 : 1 + 6 * _STROKES].reshape(-1, _STROKES, 3, 2) - np.float32(0.5)) * np.float32(20)
    joined = of_class[:, 1 + 6 * _STROKES :] < np.float32(0.6)
    for s in range(1, _STROKES):
        control[:, s, 0] = np.where(joined[:, s, None], control[:, s - 1, 2], control[:, s, 0])
    strokes = 2 + (of_class[:, 0] * np.float32(3)).astype(np.int64)

    # Every drawing moves them, by up to 1.9 pixels, then scales, slants and shifts the whole.
    moved = control[:, None] + (
        of_drawing[:, :, :24].reshape(-1, DRAWINGS, _STROKES, 3, 2) - np.float32(0.5)
    ) * np.float32(3.8)
    scale, slant, shift, pen = (
        of_drawing[:, :, 24:26],
        of_drawing[:, :, 26],
        of_drawing[:, :, 27:29],
        of_drawing[:, :, 29],
    )
    moved = moved * (np.float32(0.8) + np.float32(0.35) * scale[:, :, None, None])
    x, y = moved[..., 0], moved[..., 1]
    x = x + (slant[:, :, None, None] - np.float32(0.5)) * np.float32(0.6) * y
    x = x + (shift[:, :, None, None, 0] - np.float32(0.5)) * np.float32(4) + np.float32((SIDE - 1) / 2)
    y = y + (shift[:, :, None, None, 1] - np.float32(0.5)) * np.float32(4) + np.float32((SIDE - 1) / 2)

    # Points along the parabolas; strokes that a class does not have lie far away.
    t = np.arange(_POINTS, dtype=np.float32) / np.float32(_POINTS - 1)
    weights = np.stack([(1 - t) * (1 - t), 2 * t * (1 - t), t * t])
    missing = np.where(np.arange(_STROKES) < strokes[:, None], np.float32(0), np.float32(1e4))[:, None, :, None]
    along = [sum(p[..., k, None] * weights[k] for k in range(3)) + missing for p in (x, y)]

    # A pixel is ink within the pen's radius of a point.
    pixel = np.arange(SIDE, dtype=np.float32)
    dx, dy = (np.square(p.reshape(*p.shape[:2], -1, 1) - pixel) for p in along)
    nearest = np.full((*dx.shape[:2], SIDE, SIDE), np.float32(1e8))
    for k in range(dx.shape[2]):
        np.minimum(nearest, dy[:, :, k, :, None] + dx[:, :, k, None, :], out=nearest)
    radius = np.float32(0.9) + np.float32(0.6) * pen
    return np.where(nearest < np.square(radius)[:, :, None, None], np.uint8(255), np.uint8(0))
