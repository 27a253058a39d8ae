"""Sinusoids: each task is to regress y = A sin(x - phase) from a few points (paper, section 5.1)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinymaml.kernels.cpu import sampling
from tinymaml.kernels.cpu.sampling import Array, Range
from tinymaml.tasks.random_streams import check, check_dtype


class Sinusoids(NamedTuple):
    """A batch of T tasks with N points each."""

    amplitude: Array  # [T]
    phase: Array  # [T], radians
    x: Array  # [T, N, 1]
    y: Array  # [T, N, 1]


def sample(
    seed: int,
    split: str,
    first_task: int,
    tasks: int,
    points: int,
    *,
    amplitude: Range = (0.1, 5.0),
    phase: Range = (0.0, math.pi),
    x: Range = (-5.0, 5.0),
    dtype: Any = np.float32,
) -> Sinusoids:
    """The tasks `first_task`, `first_task` + 1, ... of a split, with amplitude, phase and x uniform in their ranges.

    A task's amplitude, phase and points depend on (seed, split, task) alone, and the first points are the same
    however many are drawn.

    Raises:
        ValueError: no tasks or points, an empty range, an unknown split, or a negative number.
    """
    if tasks < 1 or points < 1 or first_task < 0:
        raise ValueError(f"tasks and points must be >= 1 and first_task >= 0, got {tasks}, {points}, {first_task}")
    for name, (low, high) in (("amplitude", amplitude), ("phase", phase), ("x", x)):
        if not low < high:
            raise ValueError(f"{name}: the range must be (low, high) with low < high, got {(low, high)}")
    indices = sampling.tasks_from(first_task, tasks)
    check(seed, split, indices)
    check_dtype(dtype)
    a, p, xs, ys = sampling.waves(seed, split, indices, points, amplitude, phase, x, np.dtype(dtype))
    return Sinusoids(a, p, xs[..., None], ys[..., None])
