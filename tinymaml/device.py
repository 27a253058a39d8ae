"""The one way from a primitive to a kernel: the arrays decide where it runs.

A kernel is known by the name of its family and its own, `"elementwise.add"`, and is called as
`kernel(outs, ins, **static)`: it writes into arrays it is given. A view (`"shape.reshape"`) is called as
`view(array, **static)` and returns another look at the same memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml import trace
from tinymaml.kernels import cpu

# glibc hands freed memory back to the system, to fault it in again at the next step, until it has seen one large block
# freed; from then on it keeps as much at hand. The block is never touched. It saves a quarter of an eager meta-step.
np.empty(1 << 24, np.uint8)

_MALLOC = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 1 << 26), "M_MMAP_MAX": (-4, 0)}
_HUGE = 1 << 29  # bytes asked for in pages of 2 MB: none of them is real before it is used
_MADV_HUGEPAGE, _PAGE = 14, 1 << 21


def keep_memory() -> bool:
    """Have glibc keep all memory that is freed, for a process that trains: a step's is the next one's.

    It is for programs, not for libraries, to say so: nothing is given back to the system any more. It saves an eager
    meta-step on images thousands of page faults, and large pages save it some of its walks through the page table.
    Returns False, and does nothing, where there is no glibc.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc, free, madvise = libc.mallopt, libc.malloc, libc.free, libc.madvise
    except (AttributeError, OSError, TypeError):
        return False
    kept = all([mallopt(name, value) == 1 for name, value in _MALLOC.values()])
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = malloc(_HUGE)
    if block:
        start = -(-block // _PAGE) * _PAGE
        madvise(start, block + _HUGE - start, _MADV_HUGEPAGE)
        free(block)
    return kept


Launch = Callable[[Any, Sequence[Any], dict[str, Any]], tuple[Any, ...]]


def kernel(name: str) -> Launch:
    """A function that allocates the outputs and runs the kernel of this name where the inputs are."""
    run: Callable[..., None] | None = None

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        nonlocal run
        recorded = trace.current()
        if recorded is not None:
            return recorded.launch(name, specs, ins, static)
        if run is None:
            run = cpu.find(name)
        outs = tuple([np.empty(shape, dtype) for shape, dtype in specs])
        run(outs, ins, **static)
        return outs

    return launch


def view(name: str) -> Launch:
    """As `kernel`, for a view."""

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        recorded = trace.current()
        if recorded is not None:
            return (recorded.view(lambda x: cpu.find(name)(x, **static), *ins),)
        return (cpu.find(name)(*ins, **static),)

    return launch
