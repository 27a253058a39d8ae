"""Random numbers by counter, with a stream for every task of every split: see `tinymaml.kernels.cpu.sampling`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.kernels.cpu import sampling
from tinymaml.kernels.cpu.sampling import SPLITS, Array, philox

__all__ = ["SPLITS", "philox", "uniform", "words"]


def words(seed: int, split: str, tasks: Array, count: int) -> Array:
    """The first `count` 32-bit numbers of each task's stream: uint64[len(tasks), count].

    Args:
        seed: 0 <= seed < 2^64.
        split: one of `SPLITS`.
        tasks: indices of tasks, 0 <= task < 2^64.

    Raises:
        ValueError: an unknown split, or numbers out of range.
    """
    check(seed, split, tasks)
    return sampling.words(seed, split, tasks.astype(np.uint64), count)


def uniform(seed: int, split: str, tasks: Array, count: int, dtype: Any = np.float32) -> Array:
    """`count` numbers in [0, 1) of each task's stream: [len(tasks), count].

    Raises:
        ValueError: as `words`.
        TypeError: a dtype other than float32 and float64.
    """
    check(seed, split, tasks)
    check_dtype(dtype)
    return sampling.uniform(seed, split, tasks.astype(np.uint64), count, dtype)


def check(seed: int, split: str, tasks: Array) -> None:
    """Raises ValueError for what `words` does not take."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    if tasks.dtype.kind not in "iu" or (tasks.size and int(tasks.min()) < 0):
        raise ValueError(f"tasks must be whole numbers >= 0, got {tasks}")


def check_dtype(dtype: Any) -> None:
    """Raises TypeError for a dtype that is not drawn in."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
