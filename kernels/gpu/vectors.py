"""Operands with their numbers from task to task, and how many neighbouring ones a thread takes at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tinymaml.kernels.gpu.launch import REAL

WIDE = 4  # of float32: 16 bytes, the most that an instruction loads

# The instances (type, width) that kernels have which take several at once.
KINDS = (("float", WIDE), ("float", 1), ("double", 1))


def width(channels: int, *operands: tuple[Any, int]) -> int:
    """`WIDE` if the operands, each with the numbers from task to task, are of float32 or int8 and aligned; else 1."""
    if channels % WIDE or any(x.dtype == np.float64 for x, _ in operands):
        return 1
    aligned = all(x.data.ptr % (WIDE * x.dtype.itemsize) == 0 and step % WIDE == 0 for x, step in operands)
    return WIDE if aligned else 1


def kind(dtype: Any, wide: int) -> str:
    """The template arguments of an instance."""
    return f"{REAL[np.dtype(dtype)]}, {wide}"


def entries(y: Any) -> tuple[Any, int]:
    """An output, which is in C order, with the numbers of a task."""
    return y, prod(y.shape[1:])


def flat(operands: Sequence[tuple[Any, int]]) -> list[Any]:
    """The arrays and their steps, as a kernel takes them."""
    return [part for operand in operands for part in operand]
