"""Sums over neighbouring axes: over the tasks, the examples of each task, the pixels of each image, all numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tinymaml.kernels.cpu.compiled.arrays import whole
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.rows import NEAR, row_pass
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute
from tinymaml.kernels.cpu.threads import LARGE

Arrays = Sequence[Any]
Shape = tuple[int, ...]

_COLUMNS = 1024  # at a time: their sums stay in the first cache

_sum_pass = row_pass(1, 0, 0, 1, lambda e, xs, cs, sums: ([], [e.builder.fadd(sums[0], xs[0])]))


@njit(cache=True, nogil=True)
def _sum_middle(out: Any, x: Any, first: int, last: int) -> None:
    """out[i, j] = the sum over k of x[i, k, j]: some neighbours in the order of k, then these sums in their order."""
    rows, wide = x.shape[1], x.shape[2]
    for i in range(first, last):
        out[i] = 0
        at = x.ctypes.data + i * rows * wide * x.itemsize
        _sum_pass(out.dtype.type(0), rows, wide, (at,), 0, out.ctypes.data + i * wide * out.itemsize)


_sum_middle_distributed = distribute(_sum_middle)


@njit(cache=True, nogil=True)
def _sum_middle_parallel(job: Job, *arguments: Any) -> int:
    return _sum_middle_distributed(job, arguments)


_SUM_MIDDLE = Kernel(_sum_middle, _sum_middle_parallel)


@njit(cache=True, nogil=True)
def _sum_few(out: Any, x: Any, first: int, last: int) -> None:
    """out[i, j] = the sum over k of x[i, k, j], in the order of k."""
    for i in range(first, last):
        for j in range(x.shape[2]):
            out[i, j] = 0
        for k in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[i, j] += x[i, k, j]


_sum_few_distributed = distribute(_sum_few)


@njit(cache=True, nogil=True)
def _sum_few_parallel(job: Job, *arguments: Any) -> int:
    return _sum_few_distributed(job, arguments)


_SUM_FEW = Kernel(_sum_few, _sum_few_parallel)


@njit(cache=True, nogil=True)
def _sum_first(out: Any, x: Any, few: int, first: int, last: int) -> None:
    """out[j] = the sum over k of x[k, j]: `few` neighbours in the order of k, then these sums in their order."""
    some = np.empty(_COLUMNS, out.dtype)
    for block in range(first, last):
        start, end = block * _COLUMNS, min((block + 1) * _COLUMNS, x.shape[1])
        for j in range(start, end):
            out[j] = 0
        for k in range(0, x.shape[0], few):
            some[:] = 0
            for i in range(k, min(k + few, x.shape[0])):
                for j in range(start, end):
                    some[j - start] += x[i, j]
            for j in range(start, end):
                out[j] += some[j - start]


_sum_first_distributed = distribute(_sum_first)


@njit(cache=True, nogil=True)
def _sum_first_parallel(job: Job, *arguments: Any) -> int:
    return _sum_first_distributed(job, arguments)


_SUM_FIRST = Kernel(_sum_first, _sum_first_parallel)


@njit(cache=True, nogil=True)
def _sum_last(out: Any, x: Any, few: int, first: int, last: int) -> None:
    """out[i] = the sum of x[i]: `few` neighbours in their order, then these sums in theirs."""
    for i in range(first, last):
        out[i] = 0
        for k in range(0, x.shape[1], few):
            some = out.dtype.type(0)
            for j in range(k, min(k + few, x.shape[1])):
                some += x[i, j]
            out[i] += some


_sum_last_distributed = distribute(_sum_last)


@njit(cache=True, nogil=True)
def _sum_last_parallel(job: Job, *arguments: Any) -> int:
    return _sum_last_distributed(job, arguments)


_SUM_LAST = Kernel(_sum_last, _sum_last_parallel)


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
    return (before, math.prod(shape[start:end]), behind) if neighbours else None


def sum_to(outs: Arrays, ins: Arrays, shape: Shape) -> Launch | None:
    """The sum over the leading axes that the result lacks and those where it has length 1. Of some of the rows of x
    its result has as many, whatever `shape` says of all."""
    (out,), (x,) = outs, ins
    middle = _as_middle(x.shape, out.shape)
    if middle is None:
        return None
    before, summed, behind = middle
    over_tasks, x = before == 1 < x.shape[0], whole(x).reshape(middle)
    few = summed if over_tasks and x.size < LARGE else NEAR
    if behind == 1:
        return Launch(before, x.size, _SUM_LAST, (out.reshape(before), x[:, :, 0], few))
    if over_tasks:
        return Launch(-(-behind // _COLUMNS), x.size, _SUM_FIRST, (out.reshape(behind), x[0], few))
    # How a task's numbers are added up must not depend on how many tasks there are.
    kernel = _SUM_FEW if summed <= NEAR else _SUM_MIDDLE
    return Launch(before, x.size, kernel, (out.reshape(before, behind), x))
