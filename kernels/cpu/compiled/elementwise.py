"""Elementwise kernels that NumPy would need several passes for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import njit

from tinymaml.kernels.cpu import elementwise as reference

Arrays = Sequence[Any]


@njit(cache=True, nogil=True)
def _gate(out: Any, g: Any, y: Any) -> None:
    zero = out.dtype.type(0)
    for i in range(out.size):
        out[i] = g[i] if y[i] > 0 else zero


@njit(cache=True, nogil=True)
def _descend(out: Any, x: Any, rate: Any, g: Any) -> None:
    for i in range(out.size):
        out[i] = x[i] - rate * g[i]


def aligned(*arrays: Any) -> bool:
    """Whether the arrays have one shape and lie in memory in C order, so that a flat loop may run over them."""
    shape = arrays[0].shape
    return all([x.shape == shape and x.flags.c_contiguous for x in arrays])


def gate(outs: Arrays, ins: Arrays) -> None:
    """g where y > 0, else 0."""
    (out,), (g, y) = outs, ins
    if aligned(out, g, y):
        _gate(out.ravel(), g.ravel(), y.ravel())
    else:
        reference.gate(outs, ins)


def descend(outs: Arrays, ins: Arrays) -> None:
    """x - rate g."""
    (out,), (x, rate, g) = outs, ins
    if rate.ndim == 0 and aligned(out, x, g):
        _descend(out.ravel(), x.ravel(), rate.dtype.type(rate), g.ravel())
    else:
        reference.descend(outs, ins)
