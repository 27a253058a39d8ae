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


def top_last(outs: Arrays, ins: Arrays, count: int) -> None:
    """The indices of the `count` largest along the last axis, the largest first, and of equal ones the first; what is
    not a number is largest."""
    (x,), (index,) = ins, outs
    rising = np.argsort(x[..., ::-1], axis=-1, kind="stable")  # what is not a number comes last
    index[...] = x.shape[-1] - 1 - rising[..., ::-1][..., :count]


def cumsum(outs: Arrays, ins: Arrays, axis: int, reverse: bool) -> None:
    """The sums of the first 1, 2, ... numbers along an axis, or from the last one on backward."""
    (x,), (y,) = ins, outs
    order = (*[np.s_[:]] * axis, np.s_[:: -1 if reverse else 1])
    np.add.accumulate(x[order], axis=axis, out=y[order])


def logsumexp(outs: Arrays, ins: Arrays, shape: tuple[int, ...]) -> None:
    """log sum exp over the axes where `shape` has length 1, the largest taken out first."""
    x, (y,) = np.ascontiguousarray(ins[0]).reshape(ins[0].shape), outs  # NumPy adds up in the order of memory
    axes = tuple([i for i, n in enumerate(shape) if n == 1])
    largest = np.max(x, axis=axes, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    total = np.sum(np.exp(x - largest), axis=axes, keepdims=True)
    with np.errstate(divide="ignore"):  # the sum over nothing but -inf is -inf
        np.add(np.log(total), largest, out=y)
