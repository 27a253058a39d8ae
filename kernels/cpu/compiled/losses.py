"""Losses and their gradients, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import njit

from tinymaml.kernels.cpu import losses as reference

Arrays = Sequence[Any]


@njit(cache=True, nogil=True)
def _mse(out: Any, p: Any, t: Any) -> None:
    for i in range(p.shape[0]):
        total = out.dtype.type(0)
        for j in range(p.shape[1]):
            total += (p[i, j] - t[i, j]) * (p[i, j] - t[i, j])
        out[i] = total / out.dtype.type(p.shape[1])


@njit(cache=True, nogil=True)
def _scaled_difference(out: Any, p: Any, t: Any, h: Any, scale: Any) -> None:
    for i in range(p.shape[0]):
        factor = h[i] * scale
        for j in range(p.shape[1]):
            out[i, j] = (p[i, j] - t[i, j]) * factor


def _flat(x: Any) -> Any:
    return x.reshape(x.shape[0], -1)


def mse(outs: Arrays, ins: Arrays) -> None:
    """The mean of (p - t)^2 over all axes but the first."""
    p, t = ins
    if p.size and p.flags.c_contiguous and t.flags.c_contiguous:
        _mse(outs[0], _flat(p), _flat(t))
    else:
        reference.mse(outs, ins)


def scaled_difference(outs: Arrays, ins: Arrays, scale: float) -> None:
    """scale h (p - t), with one h for each entry of the first axis."""
    (out,), (p, t, h) = outs, ins
    if p.size and p.flags.c_contiguous and t.flags.c_contiguous:
        _scaled_difference(_flat(out), _flat(p), _flat(t), h, h.dtype.type(scale))
    else:
        reference.scaled_difference(outs, ins, scale)
