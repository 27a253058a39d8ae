"""Sums over neighbouring axes: over the tasks, over the examples of each task, over the pixels of each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from numba import njit

from tinymaml.kernels.cpu import shape as reference
from tinymaml.kernels.cpu.compiled.crew import Job, hand_out, over_tasks
from tinymaml.kernels.cpu.compiled.rows import row_pass
from tinymaml.kernels.cpu.threads import LARGE

Arrays = Sequence[Any]
Shape = tuple[int, ...]

_sum_pass = row_pass(1, 0, 0, 1, lambda e, xs, cs, sums: ([], [e.builder.fadd(sums[0], xs[0])]))


@njit(cache=True, nogil=True)
def _sum_middle(out: Any, x: Any, first: int, last: int) -> None:
    """out[i, j] = the sum over k of x[i, k, j]: some neighbours in the order of k, then these sums in their order."""
    rows, wide = x.shape[1], x.shape[2]
    for i in range(first, last):
        out[i] = 0
        at = x.ctypes.data + i * rows * wide * x.itemsize
        _sum_pass(out.dtype.type(0), rows, wide, (at,), 0, out.ctypes.data + i * wide * out.itemsize)


_sum_middle_out = hand_out(_sum_middle)


@njit(cache=True, nogil=True)
def _sum_middle_parts(job: Job, *arguments: Any) -> int:
    return _sum_middle_out(job, arguments)


@njit(cache=True, nogil=True)
def _sum_few(out: Any, x: Any) -> None:
    """out[i, j] = the sum over k of x[i, k, j], in the order of k."""
    for i in range(x.shape[0]):
        for j in range(x.shape[2]):
            out[i, j] = 0
        for k in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[i, j] += x[i, k, j]


@lru_cache(maxsize=4096)
def _as_middle(shape: Shape, to: Shape) -> Shape | None:
    """[before, summed, behind] that a sum of x[shape] is to be seen as; None if it is better left to the reference."""
    full = (1,) * (len(shape) - len(to)) + to
    summed = [i for i, n in enumerate(full) if n != shape[i]]
    if not summed or math.prod(shape) == 0:
        return None
    start, end = summed[0], summed[-1] + 1
    before, behind = math.prod(full[:start]), math.prod(full[end:])
    neighbours = before * behind == math.prod(full)
    return (before, math.prod(shape[start:end]), behind) if neighbours and behind > 1 else None


def sum_to(outs: Arrays, ins: Arrays, shape: Shape) -> None:
    """The sum over the leading axes that `shape` lacks and those where it has length 1."""
    (out,), (x,) = outs, ins
    if 0 < x.size < LARGE and x.ndim == len(shape) > 1 and x.flags.c_contiguous:
        if shape == (1, *x.shape[1:]):
            _sum_few(out.reshape(1, -1), x.reshape(1, len(x), -1))
            return
        if x.ndim == 3 and shape == (x.shape[0], 1, x.shape[2]):
            _sum_few(out[:, 0], x)
            return
    middle = _as_middle(x.shape, shape)
    if middle is None or not x.flags.c_contiguous:
        reference.sum_to(outs, ins, shape)
        return
    over_tasks(middle[0], x.size, _sum_middle_parts, out.reshape(middle[0], middle[2]), x.reshape(middle))
