"""Elementwise kernels that NumPy would need several passes for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinymaml.kernels.cpu.compiled.crew import Job, Kernel, Launch, hand_out
from tinymaml.kernels.cpu.compiled.jit import njit

Arrays = Sequence[Any]


@njit(cache=True, nogil=True)
def _gate(out: Any, g: Any, y: Any, first: int, last: int) -> None:
    zero = out.dtype.type(0)
    for i in range(first, last):
        out[i] = g[i] if y[i] > 0 else zero


_gate_out = hand_out(_gate)


@njit(cache=True, nogil=True)
def _gate_parts(job: Job, *arguments: Any) -> int:
    return _gate_out(job, arguments)


_GATE = Kernel(_gate, _gate_parts)


@njit(cache=True, nogil=True)
def _descend(out: Any, x: Any, rate: Any, g: Any, first: int, last: int) -> None:
    """Over [tasks, numbers], where x may have one row for all tasks."""
    for t in range(first, last):
        row = x[t if x.shape[0] > 1 else 0]
        for i in range(out.shape[1]):
            out[t, i] = row[i] - rate[0] * g[t, i]


_descend_out = hand_out(_descend)


@njit(cache=True, nogil=True)
def _descend_parts(job: Job, *arguments: Any) -> int:
    return _descend_out(job, arguments)


_DESCEND = Kernel(_descend, _descend_parts)


def aligned(*arrays: Any) -> bool:
    """Whether the arrays have one shape and lie in memory in C order, so that a flat loop may run over them."""
    shape = arrays[0].shape
    return all([x.shape == shape and x.flags.c_contiguous for x in arrays])


def gate(outs: Arrays, ins: Arrays) -> Launch | None:
    """g where y > 0, else 0."""
    (out,), (g, y) = outs, ins
    return Launch(out.size, out.size, _GATE, (out.ravel(), g.ravel(), y.ravel())) if aligned(out, g, y) else None


def descend(outs: Arrays, ins: Arrays) -> Launch | None:
    """x - rate g."""
    (out,), (x, rate, g) = outs, ins
    if x.ndim > 1 and x.strides[0] == 0 and x.shape == g.shape:
        x = x[:1]  # shared by the tasks: the first inner step's start
    if rate.ndim or not out.size or not aligned(out, g) or x.shape[1:] != g.shape[1:] or not x.flags.c_contiguous:
        return None
    tasks = len(out) if out.ndim else 1
    start, of = x.reshape(len(x) if x.ndim else 1, -1), g.reshape(tasks, -1)
    return Launch(tasks, out.size, _DESCEND, (out.reshape(tasks, -1), start, rate.reshape(1), of))
