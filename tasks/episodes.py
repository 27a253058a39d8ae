"""Episodes: N-way K-shot tasks drawn from a set of labelled images (paper, section 5.2).

An episode is a function of (seed, split, task) alone, so it is the same in whatever batch, and by whatever process, it
is drawn; a meta-batch is one gather of images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinymaml.tasks.counter import words
from tinymaml.tasks.imageset import ImageSet

Array = np.ndarray[Any, np.dtype[Any]]


class Episodes(NamedTuple):
    """T tasks. Examples stand class by class; labels are 0 ... ways - 1, in the order in which classes were drawn."""

    support: dict[str, Array]  # x: float32 [T, ways * shots, H, W, C] in [0, 1]; y: int64 [T, ways * shots]
    query: dict[str, Array]  # the same with `queries` images a class
    classes: Array  # int64 [T, ways]
    turns: Array  # int64 [T, ways]: quarter turns of each class


def sample(
    images: ImageSet,
    seed: int,
    split: str,
    first_task: int,
    tasks: int,
    *,
    ways: int,
    shots: int,
    queries: int,
    rotations: bool = False,
) -> Episodes:
    """The tasks `first_task`, `first_task` + 1, ... of a split's stream.

    Classes are drawn without replacement, then one number of quarter turns for each (if `rotations`: so two turns of
    one class never meet in a task), then images without replacement: support and query share none. With more queries
    the first ones stay the same.

    Raises:
        ValueError: numbers < 1, more ways than classes, more images than a class has, images to turn that are not
            square, an unknown split.
    """
    counts = np.diff(images.first)
    _check(images, counts, first_task, {"tasks": tasks, "ways": ways, "shots": shots, "queries": queries}, rotations)
    drawn = words(seed, split, np.arange(first_task, first_task + tasks, dtype=np.uint64), ways * (2 + shots + queries))
    drawn = drawn.reshape(tasks, 2 + shots + queries, ways)
    classes = _distinct(drawn[:, 0], np.full((tasks, 1), len(counts)))
    turns = (drawn[:, 1] >> np.uint64(30)).astype(np.int64) * rotations
    chosen = _distinct(np.swapaxes(drawn[:, 2:], 1, 2), counts[classes][..., None])
    found = images.images[(images.first[classes][..., None] + chosen).ravel()]
    found = found.reshape(tasks, ways, shots + queries, *found.shape[1:])
    for quarter in range(1, 4) if rotations else ():
        those = turns == quarter
        found[those] = np.rot90(found[those], quarter, (2, 3))
    labels = np.broadcast_to(np.arange(ways)[:, None], (tasks, ways, shots + queries))

    def part(which: slice) -> dict[str, Array]:
        x, y = found[:, :, which], labels[:, :, which]
        shape = (tasks, ways * x.shape[2], *found.shape[3:])
        return {"x": np.divide(x, np.float32(255)).reshape(shape), "y": y.reshape(tasks, -1)}

    return Episodes(part(slice(0, shots)), part(slice(shots, None)), classes, turns)


def _distinct(drawn: Array, counts: Array) -> Array:
    """Whole numbers below `counts`, distinct along the last axis, from 32-bit random words.

    The j-th is one of those that are left: its rank among them becomes a number by stepping over each smaller one that
    is taken.
    """
    taken = np.empty((*drawn.shape[:-1], 0), np.int64)
    found = np.empty(drawn.shape, np.int64)
    for j in range(drawn.shape[-1]):
        left = (counts[..., 0] - j).astype(np.uint64)
        number = ((drawn[..., j] * left) >> np.uint64(32)).astype(np.int64)
        for i in range(j):
            number += number >= taken[..., i]
        found[..., j] = number
        taken = np.sort(np.concatenate([taken, number[..., None]], -1), -1)
    return found


def _check(images: ImageSet, counts: Array, first_task: int, numbers: dict[str, int], rotations: bool) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if first_task < 0:
        raise ValueError(f"first_task must not be negative, got {first_task}")
    if numbers["ways"] > len(counts):
        raise ValueError(f"{numbers['ways']} ways, but {images.name} has {len(counts)} {images.split} classes")
    wanted = numbers["shots"] + numbers["queries"]
    if counts.min() < wanted:
        name = images.classes[int(counts.argmin())]
        raise ValueError(f"class {name} of {images.name} has {counts.min()} images, a task takes {wanted} of a class")
    if rotations and images.images.shape[1] != images.images.shape[2]:
        raise ValueError(f"only square images can be turned, those of {images.name} are {images.images.shape[1:3]}")
