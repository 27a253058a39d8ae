"""Sums over one axis of three: over the tasks, or over the examples of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import njit

from tinymaml.kernels.cpu import shape as reference

Arrays = Sequence[Any]


@njit(cache=True, nogil=True)
def _sum_middle(out: Any, x: Any) -> None:
    """out[i, 0, j] = sum over k of x[i, k, j], in the order of k."""
    for i in range(x.shape[0]):
        for j in range(x.shape[2]):
            out[i, 0, j] = 0
        for k in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[i, 0, j] += x[i, k, j]


def sum_to(outs: Arrays, ins: Arrays, shape: tuple[int, ...]) -> None:
    """The sum over the leading axes that `shape` lacks and those where it has length 1."""
    (out,), (x,) = outs, ins
    if x.size and x.ndim == len(shape) and x.ndim > 1 and x.flags.c_contiguous:
        if shape[1:] == x.shape[1:] and shape[0] == 1:
            _sum_middle(out.reshape(1, 1, -1), x.reshape(1, x.shape[0], -1))
            return
        if x.ndim == 3 and shape == (x.shape[0], 1, x.shape[2]):
            _sum_middle(out, x)
            return
    reference.sum_to(outs, ins, shape)
