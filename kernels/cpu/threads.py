"""How many threads kernels run on, and a pool for NumPy's functions; compiled kernels have `compiled/thread_pool.py`.

A kernel is serial over a range of tasks, and ranges run side by side. Tasks never meet inside a kernel, so the results
are the same bits for any number of threads. `TINYMAML_THREADS` sets their number; all cores otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MOST = 1024  # threads: far more than any machine has use for, and few enough to be started
LARGE = 200_000  # operations or numbers moved from which a second thread pays for its start


@cache
def count() -> int:
    """How many threads kernels run on. Raises ValueError if TINYMAML_THREADS is not a whole number from 1 to MOST."""
    asked = os.environ.get("TINYMAML_THREADS", "")
    if asked:
        if not asked.isdecimal() or len(asked) > 9 or not 1 <= int(asked) <= MOST:
            raise ValueError(f"TINYMAML_THREADS must be a whole number from 1 to {MOST}, got {asked!r}")
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST)


@cache
def _pool() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # here, so that `import tinymaml` stays quick

    return ThreadPoolExecutor(count() - 1, "tinymaml")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def over_tasks(tasks: int, work: int, run: Callable[[int, int], object]) -> None:
    """run(first, last) on ranges that make up all the tasks; it must let go of the interpreter lock (`nogil`).

    `work` is what the kernel does in all, in operations or numbers moved: little work stays on the calling thread.
    """
    parts = min(count(), tasks) if work >= LARGE else 1
    if parts <= 1:
        run(0, tasks)
        return
    ends = [tasks * part // parts for part in range(parts + 1)]
    waiting = [_pool().submit(run, first, last) for first, last in pairwise(ends[1:])]
    try:
        run(ends[0], ends[1])
    finally:
        for future in waiting:
            future.result()
