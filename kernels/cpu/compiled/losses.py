"""Losses and their gradients, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.cpu.compiled.arrays import whole
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute

Arrays = Sequence[Any]

_EXPONENTIAL = 16  # operations that one is worth


@njit(cache=True, nogil=True)
def _mse(out: Any, p: Any, t: Any, first: int, last: int) -> None:
    for i in range(first, last):
        total = out.dtype.type(0)
        for j in range(p.shape[1]):
            total += (p[i, j] - t[i, j]) * (p[i, j] - t[i, j])
        out[i] = total / out.dtype.type(p.shape[1])


_mse_distributed = distribute(_mse)


@njit(cache=True, nogil=True)
def _mse_parallel(job: Job, *arguments: Any) -> int:
    return _mse_distributed(job, arguments)


_MSE = Kernel(_mse, _mse_parallel)


@njit(cache=True, nogil=True)
def _scaled_difference(out: Any, p: Any, t: Any, h: Any, scale: Any, first: int, last: int) -> None:
    for i in range(first, last):
        factor = h[i] * out.dtype.type(scale)
        for j in range(p.shape[1]):
            out[i, j] = (p[i, j] - t[i, j]) * factor


_scaled_difference_distributed = distribute(_scaled_difference)


@njit(cache=True, nogil=True)
def _scaled_difference_parallel(job: Job, *arguments: Any) -> int:
    return _scaled_difference_distributed(job, arguments)


_SCALED_DIFFERENCE = Kernel(_scaled_difference, _scaled_difference_parallel)


@njit(cache=True, nogil=True)
def _softmax(logits: Any, p: Any) -> Any:
    """p = softmax(logits); returns the largest, and log sum exp of what the logits are above it, exact for any size."""
    top = logits[0]
    for c in range(len(logits)):
        top = logits[c] if not logits[c] <= top else top  # what is not a number stays
    total = p.dtype.type(0)
    for c in range(len(logits)):
        p[c] = np.exp(logits[c] - top)
        total += p[c]
    for c in range(len(logits)):
        p[c] /= total
    return top, np.log(total)


@njit(cache=True, nogil=True)
def _cross_entropy(out: Any, logits: Any, labels: Any, first: int, last: int) -> None:
    p = np.empty(logits.shape[2], out.dtype)
    for t in range(first, last):
        total = out.dtype.type(0)
        for n in range(logits.shape[1]):
            top, rest = _softmax(logits[t, n], p)
            total += rest - (logits[t, n, labels[t, n]] - top)
        out[t] = total / out.dtype.type(logits.shape[1])


_cross_entropy_distributed = distribute(_cross_entropy)


@njit(cache=True, nogil=True)
def _cross_entropy_parallel(job: Job, *arguments: Any) -> int:
    return _cross_entropy_distributed(job, arguments)


_CROSS_ENTROPY = Kernel(_cross_entropy, _cross_entropy_parallel)


@njit(cache=True, nogil=True)
def _cross_entropy_gradient(out: Any, logits: Any, labels: Any, h: Any, first: int, last: int) -> None:
    one = out.dtype.type(1)
    for t in range(first, last):
        factor = h[t] / out.dtype.type(logits.shape[1])
        for n in range(logits.shape[1]):
            row = out[t, n]
            _softmax(logits[t, n], row)
            row[labels[t, n]] -= one
            for c in range(logits.shape[2]):
                row[c] *= factor


_cross_entropy_gradient_distributed = distribute(_cross_entropy_gradient)


@njit(cache=True, nogil=True)
def _cross_entropy_gradient_parallel(job: Job, *arguments: Any) -> int:
    return _cross_entropy_gradient_distributed(job, arguments)


_CROSS_ENTROPY_GRADIENT = Kernel(_cross_entropy_gradient, _cross_entropy_gradient_parallel)


@njit(cache=True, nogil=True)
def _cross_entropy_hessian(out: Any, logits: Any, h: Any, v: Any, first: int, last: int) -> None:
    for t in range(first, last):
        factor = h[t] / out.dtype.type(logits.shape[1])
        for n in range(logits.shape[1]):
            row = out[t, n]
            _softmax(logits[t, n], row)
            slope = out.dtype.type(0)
            for c in range(logits.shape[2]):
                slope += row[c] * v[t, n, c]
            for c in range(logits.shape[2]):
                row[c] *= (v[t, n, c] - slope) * factor


_cross_entropy_hessian_distributed = distribute(_cross_entropy_hessian)


@njit(cache=True, nogil=True)
def _cross_entropy_hessian_parallel(job: Job, *arguments: Any) -> int:
    return _cross_entropy_hessian_distributed(job, arguments)


_CROSS_ENTROPY_HESSIAN = Kernel(_cross_entropy_hessian, _cross_entropy_hessian_parallel)


def _flat(x: Any) -> Any:
    return whole(x).reshape(x.shape[0], -1)


def mse(outs: Arrays, ins: Arrays) -> Launch | None:
    """The mean of (p - t)^2 over all axes but the first."""
    p, t = ins
    return Launch(len(p), p.size, _MSE, (outs[0], _flat(p), _flat(t))) if p.size else None


def scaled_difference(outs: Arrays, ins: Arrays, scale: float) -> Launch | None:
    """scale h (p - t), with one h for each entry of the first axis."""
    (out,), (p, t, h) = outs, ins
    arguments = (_flat(out), _flat(p), _flat(t), whole(h), float(scale)) if p.size else ()
    return Launch(len(p), p.size, _SCALED_DIFFERENCE, arguments) if p.size else None


def _examples(*arrays: Any) -> list[Any]:
    """[T, ..., C] each -> [T, N, C], in C order."""
    return [whole(x).reshape(x.shape[0], -1, x.shape[-1]) for x in arrays]


def _launch(logits: Any, kernel: Kernel, *arguments: Any) -> Launch:
    return Launch(len(logits), _EXPONENTIAL * logits.size, kernel, arguments)


def cross_entropy(outs: Arrays, ins: Arrays) -> Launch | None:
    """The mean over a task's examples of log sum exp(logits) - the label's logit."""
    if not ins[0].size:
        return None
    (out,), (logits,), labels = outs, _examples(ins[0]), _flat(ins[1])
    return _launch(logits, _CROSS_ENTROPY, out, logits, labels)


def cross_entropy_gradient(outs: Arrays, ins: Arrays) -> Launch | None:
    """h / N (softmax - onehot)."""
    if not ins[0].size:
        return None
    (out, logits), labels, h = _examples(outs[0], ins[0]), _flat(ins[1]), whole(ins[2])
    return _launch(logits, _CROSS_ENTROPY_GRADIENT, out, logits, labels, h)


def cross_entropy_hessian(outs: Arrays, ins: Arrays) -> Launch | None:
    """h / N (p v - p <p, v>) with p the softmax."""
    if not ins[0].size:
        return None
    (out, logits, v), h = _examples(outs[0], ins[0], ins[2]), whole(ins[1])
    return _launch(logits, _CROSS_ENTROPY_HESSIAN, out, logits, h, v)
