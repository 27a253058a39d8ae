"""Views, their adjoints, gather and scatter, joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]
Shape = tuple[int, ...]


def identity(x: Any) -> Any:
    """View: the array itself."""
    return x


def reshape(x: Any, shape: Shape) -> Any:
    """View (a copy if x is not contiguous)."""
    return x.reshape(shape)


def transpose(x: Any, axes: Shape) -> Any:
    """View."""
    return x.transpose(axes)


def broadcast_to(x: Any, shape: Shape) -> Any:
    """View with stride 0."""
    return np.broadcast_to(x, shape)


def slice(x: Any, index: tuple[Any, ...]) -> Any:  # noqa: A001
    """View."""
    return x[index if ... in index else (*index, ...)]  # of one number too


def sum_to(outs: Arrays, ins: Arrays, shape: Shape) -> None:
    """The sum over the leading axes that `shape` lacks and those where it has length 1."""
    x = np.ascontiguousarray(ins[0]).reshape(ins[0].shape)  # NumPy adds up in the order of memory
    lead = x.ndim - len(shape)
    axes = tuple([i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1)])
    np.add.reduce(x, axis=axes, keepdims=True, out=outs[0].reshape((1,) * lead + shape))


def _fill(index: tuple[Any, ...], arrays: Arrays) -> tuple[Any, ...]:
    """The index, with its arrays at their places: those parts that are neither slices, integers, None nor Ellipsis."""
    rest = iter(arrays)
    plain = (int, type(None), type(...), type(np.s_[:]))
    return tuple([part if isinstance(part, plain) else next(rest) for part in index])


def gather(outs: Arrays, ins: Arrays, index: tuple[Any, ...]) -> None:
    """x[index]."""
    outs[0][...] = ins[0][_fill(index, ins[1:])]


def scatter(outs: Arrays, ins: Arrays, index: tuple[Any, ...], shape: Shape) -> None:
    """Zeros with g added at [index], in order; the adjoint of gather and of slice."""
    outs[0].fill(0)
    if len(ins) > 1:
        np.add.at(outs[0], _fill(index, ins[1:]), ins[0])
    else:
        outs[0][index] = ins[0]


def concatenate(outs: Arrays, ins: Arrays, axis: int) -> None:
    """Arrays one behind the other."""
    np.concatenate(ins, axis=axis, out=outs[0])
