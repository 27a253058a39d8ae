"""Optimisers' updates: what depends on the iteration, and one pass over each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from tinymaml.kernels.cpu.compiled.elementwise import aligned
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute

Arrays = Sequence[Any]


@njit(cache=True, nogil=True)
def _next_iteration(after: Any, at: Any, iteration: Any, first: int, last: int) -> None:
    for i in range(first, last):
        after[i] = iteration[i] + 1
        at[i] = iteration[i]


_next_iteration_distributed = distribute(_next_iteration)


@njit(cache=True, nogil=True)
def _next_iteration_parallel(job: Job, *arguments: Any) -> int:
    return _next_iteration_distributed(job, arguments)


_NEXT_ITERATION = Kernel(_next_iteration, _next_iteration_parallel)


def next_iteration(outs: Arrays, ins: Arrays) -> Launch:
    """The iteration after this one, int64, and this one as float64."""
    return Launch(1, 1, _NEXT_ITERATION, tuple([array.reshape(1) for array in (*outs, *ins)]))


@njit(cache=True, nogil=True)
def _bias_correction(scales: Any, at: Any, rate: Any, betas: Any, first: int, last: int) -> None:
    for i in range(first, last):
        t = at[i] + 1.0  # a float: powers are then the C library's, as Python's are
        scales[2 * i] = rate[i] / (1.0 - betas[0] ** t)
        scales[2 * i + 1] = 1.0 / (1.0 - betas[1] ** t)


_bias_correction_distributed = distribute(_bias_correction)


@njit(cache=True, nogil=True)
def _bias_correction_parallel(job: Job, *arguments: Any) -> int:
    return _bias_correction_distributed(job, arguments)


_BIAS_CORRECTION = Kernel(_bias_correction, _bias_correction_parallel)


def bias_correction(outs: Arrays, ins: Arrays, beta1: float, beta2: float) -> Launch:
    """Adam's rate / (1 - beta1^t) and 1 / (1 - beta2^t), float64 [2], of iteration t - 1 and the rate, float64."""
    arrays = [array.reshape(-1) for array in (*outs, *ins)]
    return Launch(1, 1, _BIAS_CORRECTION, (*arrays, (float(beta1), float(beta2))))


@njit(cache=True, nogil=True)
def _adam(x2: Any, m2: Any, v2: Any, x: Any, g: Any, m: Any, v: Any, scales: Any, betas: Any,
          first: int, last: int) -> None:  # fmt: skip
    rate, correction = x.dtype.type(scales[0]), x.dtype.type(scales[1])
    b1, b2, epsilon = betas
    one = x.dtype.type(1)
    for i in range(first, last):
        m2[i] = b1 * m[i] + (one - b1) * g[i]
        v2[i] = b2 * v[i] + (one - b2) * (g[i] * g[i])
        x2[i] = x[i] - rate * m2[i] / (sqrt(correction * v2[i]) + epsilon)


_adam_distributed = distribute(_adam)


@njit(cache=True, nogil=True)
def _adam_parallel(job: Job, *arguments: Any) -> int:
    return _adam_distributed(job, arguments)


_ADAM = Kernel(_adam, _adam_parallel)


def adam(outs: Arrays, ins: Arrays, beta1: float, beta2: float, epsilon: float) -> Launch | None:
    """Parameter and both moments after a step; `scales` are what `bias_correction` gives."""
    x, g, m, v, scales = ins
    if not x.size or not aligned(*outs, x, g, m, v):
        return None
    flat = [array.reshape(-1) for array in (*outs, x, g, m, v)]
    betas = tuple(np.array([beta1, beta2, epsilon], x.dtype))
    return Launch(x.size, 8 * x.size, _ADAM, (*flat, scales, betas))
