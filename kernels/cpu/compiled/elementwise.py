"""Elementwise kernels that NumPy would need several passes for, or computes in another way than a program does.

exp and its like are not rounded as IEEE 754 says: two libraries give other last digits. So that a step gives the same
bits whether it is recorded or not, both compute them by the same generated code (`fused`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tinymaml.kernels import formulas
from tinymaml.kernels.cpu.compiled import fused
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, call, distribute
from tinymaml.kernels.formulas import Group, Operand, Step

Arrays = Sequence[Any]

_COSTLY = 8  # operations that a number of a generated function is worth


@njit(cache=True, nogil=True)
def _gate(out: Any, g: Any, y: Any, first: int, last: int) -> None:
    zero = out.dtype.type(0)
    for i in range(first, last):
        out[i] = g[i] if y[i] > 0 else zero


_gate_distributed = distribute(_gate)


@njit(cache=True, nogil=True)
def _gate_parallel(job: Job, *arguments: Any) -> int:
    return _gate_distributed(job, arguments)


_GATE = Kernel(_gate, _gate_parallel)


@njit(cache=True, nogil=True)
def _descend(out: Any, x: Any, rate: Any, g: Any, first: int, last: int) -> None:
    """Over [tasks, numbers], where x may have one row for all tasks."""
    for t in range(first, last):
        row = x[t if x.shape[0] > 1 else 0]
        for i in range(out.shape[1]):
            out[t, i] = row[i] - rate[0] * g[t, i]


_descend_distributed = distribute(_descend)


@njit(cache=True, nogil=True)
def _descend_parallel(job: Job, *arguments: Any) -> int:
    return _descend_distributed(job, arguments)


_DESCEND = Kernel(_descend, _descend_parallel)


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


# Generated functions, on flat arrays.


@njit(cache=True, nogil=True)
def _one(function: int, out: Any, x: Any, first: int, last: int) -> None:
    addresses = np.empty(2, np.int64)
    addresses[0], addresses[1] = x.ctypes.data, out.ctypes.data
    call(function, addresses.ctypes.data, first, last)


_one_distributed = distribute(_one)


@njit(cache=True, nogil=True)
def _one_parallel(job: Job, *arguments: Any) -> int:
    return _one_distributed(job, arguments)


@njit(cache=True, nogil=True)
def _two(function: int, out: Any, x: Any, y: Any, first: int, last: int) -> None:
    addresses = np.empty(3, np.int64)
    addresses[0], addresses[1], addresses[2] = x.ctypes.data, y.ctypes.data, out.ctypes.data
    call(function, addresses.ctypes.data, first, last)


_two_distributed = distribute(_two)


@njit(cache=True, nogil=True)
def _two_parallel(job: Job, *arguments: Any) -> int:
    return _two_distributed(job, arguments)


_OF = {1: Kernel(_one, _one_parallel), 2: Kernel(_two, _two_parallel)}  # by how many arrays it reads


@cache
def _function(name: str, dtype: Any, strides: tuple[int, ...], static: tuple[tuple[str, Any], ...]) -> fused.Function:
    step = Step(name, tuple(range(len(strides))), dtype, static)
    many = 1 << 40  # how many there are is an argument of the call
    (function,) = fused.compile(
        [Group((many,), tuple([Operand(dtype, (s,)) for s in strides]), (step,), (len(strides),))]
    )
    return function


def _flat(x: Any, shape: tuple[int, ...]) -> Any:
    """An operand as a flat array: a number, or as many as the shape has."""
    if x.size == 1:
        return x.reshape(1)
    if x.shape != shape:
        x = np.broadcast_to(x, shape)
    return x.ravel()  # a copy if it is not in C order


def _generated(name: str) -> Callable[..., Launch | None]:
    def launch_of(outs: Arrays, ins: Arrays, **static: Any) -> Launch | None:
        """See the formula of this name."""
        (out,) = outs
        if not out.size or out.dtype not in formulas.FLOATS:
            return None
        flat = [_flat(x, out.shape) for x in ins]
        strides = tuple([x.itemsize if len(x) > 1 else 0 for x in flat])
        function = _function(name, out.dtype, strides, tuple(static.items()))
        return Launch(out.size, _COSTLY * out.size, _OF[len(ins)], (function.address, out.reshape(-1), *flat))

    return launch_of


exp = _generated("exp")
expm1 = _generated("expm1")
log = _generated("log")
log1p = _generated("log1p")
sin = _generated("sin")
cos = _generated("cos")
tanh = _generated("tanh")
sigmoid = _generated("sigmoid")
softplus = _generated("softplus")
power = _generated("power")
power_of = _generated("power_of")
