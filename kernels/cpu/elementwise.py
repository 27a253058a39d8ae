"""Elementwise kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.cpu.threads import LARGE, over_tasks

Arrays = Sequence[Any]


def _from(function: Callable[..., Any]) -> Callable[..., None]:
    """A kernel from a NumPy function that can write into `out`; large arrays are shared out along the first axis."""

    def kernel(outs: Arrays, ins: Arrays) -> None:
        (out,) = outs
        if out.size < LARGE or out.ndim < 2:
            function(*ins, out=out)
            return
        along = [x.ndim == out.ndim and len(x) == len(out) for x in ins]

        def run(first: int, last: int) -> None:
            parts = [x[first:last] if cut else x for x, cut in zip(ins, along, strict=True)]
            function(*parts, out=out[first:last])

        over_tasks(len(out), out.size, run)

    return kernel


add = _from(np.add)
subtract = _from(np.subtract)
multiply = _from(np.multiply)
divide = _from(np.divide)
negative = _from(np.negative)
power = _from(np.power)
exp = _from(np.exp)
expm1 = _from(np.expm1)
log = _from(np.log)
log1p = _from(np.log1p)
sqrt = _from(np.sqrt)
sin = _from(np.sin)
cos = _from(np.cos)
tanh = _from(np.tanh)
abs = _from(np.abs)  # noqa: A001
sign = _from(np.sign)
greater = _from(np.greater)
greater_equal = _from(np.greater_equal)
less = _from(np.less)
less_equal = _from(np.less_equal)
equal = _from(np.equal)
not_equal = _from(np.not_equal)


def first_is_larger(outs: Arrays, ins: Arrays) -> None:
    """Whether x >= y, or x is not a number."""
    x, y = ins
    np.logical_or(x >= y, x != x, out=outs[0])


def first_is_smaller(outs: Arrays, ins: Arrays) -> None:
    """Whether x <= y, or x is not a number."""
    x, y = ins
    np.logical_or(x <= y, x != x, out=outs[0])


def descend(outs: Arrays, ins: Arrays) -> None:
    """x - rate g."""
    x, rate, g = ins
    np.subtract(x, np.multiply(rate, g), out=outs[0])


def power_of(outs: Arrays, ins: Arrays, exponent: float) -> None:
    """x to a constant power; the usual ones without a logarithm."""
    if exponent == 2:
        np.square(ins[0], out=outs[0])
    elif exponent == -1:
        np.reciprocal(ins[0], out=outs[0])
    elif exponent == 0.5:
        np.sqrt(ins[0], out=outs[0])
    else:
        np.power(ins[0], np.asarray(exponent, ins[0].dtype), out=outs[0])


def sigmoid(outs: Arrays, ins: Arrays) -> None:
    """1 / (1 + exp(-x)); exp is only taken of negative numbers: nothing overflows, small values keep their digits."""
    (x,), (y,) = ins, outs
    small = np.exp(-np.abs(x))
    np.divide(np.where(x >= 0, 1, small), 1 + small, out=y)


def softplus(outs: Arrays, ins: Arrays) -> None:
    """log(1 + exp(x)) without overflow."""
    np.logaddexp(ins[0], 0, out=outs[0])


def relu(outs: Arrays, ins: Arrays) -> None:
    """max(x, 0)."""
    np.maximum(ins[0], 0, out=outs[0])


def gate(outs: Arrays, ins: Arrays) -> None:
    """g where y > 0, else 0; a cotangent that is not finite does not leak through a closed gate."""
    g, y = ins
    outs[0][...] = np.where(y > 0, g, 0)


def where(outs: Arrays, ins: Arrays) -> None:
    """a where the condition holds, else b."""
    outs[0][...] = np.where(*ins)


def astype(outs: Arrays, ins: Arrays, dtype: Any) -> None:
    """The same values in another dtype."""
    outs[0][...] = ins[0]


def copy(outs: Arrays, ins: Arrays) -> None:
    """The same numbers, in order."""
    outs[0][...] = ins[0]
