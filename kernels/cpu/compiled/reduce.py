"""The places of the largest numbers, without sorting the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinymaml.kernels.cpu.compiled.arrays import whole
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute

Arrays = Sequence[Any]


@njit(cache=True, nogil=True)
def _before(x: Any, y: Any) -> Any:
    """Whether x is larger; what is not a number is largest."""
    return x > y or (x != x and y == y)


@njit(cache=True, nogil=True)
def _top_last(index: Any, x: Any, first: int, last: int) -> None:
    """Each number that comes before the last of those kept so far is put in its place among them, behind its equals."""
    count = index.shape[1]
    for row in range(first, last):
        kept = 0
        for i in range(x.shape[1]):
            value = x[row, i]
            if kept < count:
                place = kept
                kept += 1
            elif _before(value, x[row, index[row, count - 1]]):
                place = count - 1
            else:
                continue
            while place > 0 and _before(value, x[row, index[row, place - 1]]):
                index[row, place] = index[row, place - 1]
                place -= 1
            index[row, place] = i


_top_last_distributed = distribute(_top_last)


@njit(cache=True, nogil=True)
def _top_last_parallel(job: Job, *arguments: Any) -> int:
    return _top_last_distributed(job, arguments)


_TOP_LAST = Kernel(_top_last, _top_last_parallel)


def top_last(outs: Arrays, ins: Arrays, count: int) -> Launch | None:
    """The indices of the `count` largest along the last axis, the largest first, and of equal ones the first."""
    (index,), (x,) = outs, ins
    if not index.size:
        return None
    rows, length = index.size // count, x.shape[-1]
    return Launch(rows, x.size, _TOP_LAST, (index.reshape(rows, count), whole(x).reshape(rows, length)))
