"""Reductions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def max_last(outs: Arrays, ins: Arrays) -> None:
    """The largest along the last axis and its index, the first one where several are equal."""
    (x,), (y, index) = ins, outs
    np.argmax(x, axis=-1, keepdims=True, out=index)
    y[...] = np.take_along_axis(x, index, -1)


def logsumexp(outs: Arrays, ins: Arrays, shape: tuple[int, ...]) -> None:
    """log sum exp over the axes where `shape` has length 1, the largest taken out first."""
    x, (y,) = np.ascontiguousarray(ins[0]).reshape(ins[0].shape), outs  # NumPy adds up in the order of memory
    axes = tuple([i for i, n in enumerate(shape) if n == 1])
    largest = np.max(x, axis=axes, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    total = np.sum(np.exp(x - largest), axis=axes, keepdims=True)
    with np.errstate(divide="ignore"):  # the sum over nothing but -inf is -inf
        np.add(np.log(total), largest, out=y)
