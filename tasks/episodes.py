"""Episodes: N-way K-shot tasks drawn from a set of labelled images (paper, section 5.2).

An episode is a function of (seed, split, task) alone, so it is the same in whatever batch, and by whatever process, it
is drawn; a meta-batch is one gather of images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinymaml.kernels.cpu import sampling
from tinymaml.tasks.imageset import ImageSet
from tinymaml.tasks.random_streams import check, words

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
    indices = sampling.tasks_from(first_task, tasks)
    check(seed, split, indices)
    classes, turns, chosen = sampling.choices(images.first, seed, split, indices, ways, shots + queries, rotations)

    def part(examples: int) -> dict[str, Array]:
        x = np.empty((tasks, ways * examples, *images.images.shape[1:]), np.float32)
        return {"x": x, "y": np.empty(x.shape[:2], np.int64)}

    support, query = part(shots), part(queries)
    sampling.show([*support.values(), *query.values()], images.images, chosen, turns)
    return Episodes(support, query, classes, turns)


def labelled(
    images: ImageSet, seed: int, split: str, first_task: int, tasks: int, *, count: int, turns: int = 1
) -> tuple[Array, Array]:
    """`count` single images for each of the tasks `first_task`, `first_task` + 1, ..., with their classes.

    Each is drawn from all images of the split, with replacement, and, if `turns` is 4, turned by a multiple of 90
    degrees.

    Returns:
        x float32 [tasks, count, H, W, C] in [0, 1], and labels int64 [tasks, count]: turns * class + quarter turns.

    Raises:
        ValueError: numbers < 1, images to turn that are not square, an unknown split.
    """
    _check_numbers(images, first_task, {"tasks": tasks, "count": count}, turns > 1)
    indices = sampling.tasks_from(first_task, tasks)
    drawn = words(seed, split, indices, 2 * count)
    chosen = ((drawn[:, :count] * np.uint64(len(images.images))) >> np.uint64(32)).astype(np.int64)
    quarters = ((drawn[:, count:] * np.uint64(turns)) >> np.uint64(32)).astype(np.int64)
    x = images.images[chosen.ravel()].reshape(*chosen.shape, *images.images.shape[1:])
    for quarter in range(1, turns):
        turned = quarters == quarter
        x[turned] = np.rot90(x[turned], quarter, (1, 2))
    classes = np.searchsorted(images.first, chosen, "right") - 1
    return np.divide(x, np.float32(255), dtype=np.float32), turns * classes + quarters


def _check_numbers(images: ImageSet, first_task: int, numbers: dict[str, int], rotations: bool) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if first_task < 0:
        raise ValueError(f"first_task must not be negative, got {first_task}")
    if rotations and images.images.shape[1] != images.images.shape[2]:
        raise ValueError(f"only square images can be turned, those of {images.name} are {images.images.shape[1:3]}")


def _check(images: ImageSet, counts: Array, first_task: int, numbers: dict[str, int], rotations: bool) -> None:
    _check_numbers(images, first_task, numbers, rotations)
    if numbers["ways"] > len(counts):
        raise ValueError(f"{numbers['ways']} ways, but {images.name} has {len(counts)} {images.split} classes")
    wanted = numbers["shots"] + numbers["queries"]
    if counts.min() < wanted:
        name = images.classes[int(counts.argmin())]
        raise ValueError(
            f"class {name} of {images.name} has {counts.min()} images, a task takes {wanted} of a class: "
            f"{numbers['shots']} shots and {numbers['queries']} query images"
        )
