"""Meta-batches drawn where the data are, as part of a recorded step; the tasks are those of `tinymaml.tasks`.

A stream's place is an array (seed, next task) of uint64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.tensor import Tensor, constant
from tinymaml.autodiff.tracing import declare_below

_episodes, _sinusoids = kernel("sampling", "episodes"), kernel("sampling", "sinusoids")

_PLACE = ((2,), np.dtype(np.uint64))

Batch = dict[str, Tensor]


def episodes(
    place: Tensor, images: Tensor, first: Tensor, *, dtype: str, tasks: int, ways: int, shots: int, queries: int,
    split: str, rotations: bool,
) -> tuple[list[Batch], Tensor]:  # fmt: skip
    """([support, query], the next place): tasks of a data set, uint8 [M, H, W, C] with the images of class c from
    first[c] to first[c + 1]. See `tinymaml.tasks.episodes.sample`.
    """
    specs = []
    for examples in (shots, queries):
        shape = (tasks, ways * examples)
        specs += [((*shape, *images.shape[1:]), np.dtype(dtype)), (shape, np.dtype(np.int64))]
    static = {"split": split, "ways": ways, "shots": shots, "queries": queries, "rotations": rotations}
    *drawn, after = _episodes([*specs, _PLACE], [images.data, first.data, place.data], static)
    for labels in drawn[1::2]:
        declare_below(labels, ways)
    return _batches(drawn), constant(after)


def sinusoids(
    place: Tensor, *, dtype: str, tasks: int, parts: Sequence[int], task_inputs: bool, split: str, **ranges: Any
) -> tuple[list[Batch], Tensor]:
    """(a batch for each part, of so many points, and the next place): tasks of points on sinusoids, in ranges of
    amplitude, phase and x; where it is `task_inputs`, amplitude and phase stand beside x. See
    `tinymaml.tasks.sinusoid.sample`.
    """
    specs = []
    for points in parts:
        specs += [((tasks, points, columns), np.dtype(dtype)) for columns in (3 if task_inputs else 1, 1)]
    *drawn, after = _sinusoids([*specs, _PLACE], [place.data], {"split": split, **ranges})
    return _batches(drawn), constant(after)


def _batches(drawn: Sequence[Any]) -> list[Batch]:
    return [{"x": constant(x), "y": constant(y)} for x, y in zip(drawn[::2], drawn[1::2], strict=True)]
