"""Reductions over axes, and running sums. A sum is the adjoint of a broadcast; most else is made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.operators import public_name
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent, each
from tinymaml.autodiff.tensor import Array, Tensor, as_tensor
from tinymaml.ops.elementwise import equal, exp, multiply, negative, sqrt, subtract, where
from tinymaml.ops.shape import (
    normal_axes,
    normal_axis,
    reshape,
    scatter_add,
    sum_to,
    take_along_axis,
    transpose,
    zeros_like,
)

Axis = int | Sequence[int] | None


def _shapes(name: str, x: Tensor, axis: Axis) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape after a reduction, with the reduced axes kept at length 1 and without them."""
    axes = normal_axes(name, axis, x.ndim)
    kept = tuple([1 if i in axes else n for i, n in enumerate(x.shape)])
    return kept, tuple([n for i, n in enumerate(x.shape) if i not in axes])


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:  # noqa: A001
    """The sum over axes (all, if none are named)."""
    x = as_tensor(x)
    kept, dropped = _shapes("sum", x, axis)
    return reshape(sum_to(x, kept), kept if keepdims else dropped)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over axes. Raises ValueError over no elements."""
    x = as_tensor(x)
    total = sum(x, axis, keepdims)
    if x.size == 0:
        raise ValueError(f"{public_name('mean')}: no elements in {x.shape} over axis {axis}")
    return multiply(total, total.size / x.size)


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The variance over axes: the mean square of the distance from the mean (biased). Raises ValueError over no
    elements."""
    x = as_tensor(x)
    away = subtract(x, mean(x, axis, keepdims=True))
    return mean(multiply(away, away), axis, keepdims)


def norm(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The Euclidean norm over axes: the root of the sum of squares, which must neither overflow nor vanish. Where all
    is 0 the derivative is taken to be 0."""
    x = as_tensor(x)
    square = sum(multiply(x, x), axis, keepdims)
    none = equal(square, 0.0)
    return where(none, 0.0, sqrt(where(none, 1.0, square)))


def _cumsum_adjoint(g: Tensor, y: Tensor, x: Tensor, axis: int, reverse: bool) -> Tensor:
    return _cumsum(g, axis=axis, reverse=not reverse)


_cumsum: Primitive = Primitive(
    "cumsum",
    kernel("reduce", "cumsum"),
    lambda x, axis, reverse: ((x.shape, x.dtype),),
    vjp=each(_cumsum_adjoint),
    jvp=lambda tangents, y, x, axis, reverse: _cumsum(tangents[0], axis=axis, reverse=reverse),
)


def cumsum(x: Any, axis: int | None = None) -> Tensor:
    """The sums of the first 1, 2, ... numbers along an axis; without one of all numbers in C order, on one axis."""
    x = as_tensor(x)
    if axis is None:
        return _cumsum(reshape(x, (x.size,)), axis=0, reverse=False)
    return _cumsum(x, axis=normal_axis("cumsum", axis, x.ndim), reverse=False)


def _last_specs(x: Array) -> Sequence[Spec]:
    if x.shape[-1] == 0:
        raise ValueError(f"{public_name('max')}: no elements along an axis of {x.shape}")
    return ((*x.shape[:-1], 1), x.dtype), ((*x.shape[:-1], 1), np.dtype(np.intp))


def _grid(index: Tensor) -> tuple[Any, ...]:
    """The full index of the places that `index` (its last axis of length 1) points to along the last axis."""
    return (*np.indices(index.shape, sparse=True)[:-1], index.data)


# max_last(x[..., n]) -> (y[..., 1], index[..., 1]): the first of the largest. Linear given the index.
_max_last: Primitive = Primitive(
    "max_last",
    kernel("reduce", "max_last"),
    _last_specs,
    vjp=each(lambda g, y, x: scatter_add(zeros_like(x), _grid(y[1]), g)),
    jvp=lambda tangents, y, x: take_along_axis(tangents[0], y[1], -1),
)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:  # noqa: A001
    """The largest over axes; where several are equal the derivative goes to the first in C order."""
    kept, largest, _ = max_and_index(as_tensor(x), axis)
    return reshape(largest, kept if keepdims else largest.shape[:-1])


def max_and_index(x: Tensor, axis: Axis) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """(shape with the axes at length 1, the largest over axes, its place among them in C order); the last two with one
    more axis, of length 1, in the reduced ones' place."""
    kept, dropped = _shapes("max", x, axis)
    axes = normal_axes("max", axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    last = reshape(transpose(x, [*rest, *axes]), (*dropped, math.prod(x.shape[i] for i in axes)))
    return kept, *_max_last(last)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:  # noqa: A001
    """The smallest over axes; where several are equal the derivative goes to the first in C order."""
    return negative(max(negative(x), axis, keepdims))


def _logsumexp_jvp(tangents: Sequence[Tangent], y: Tensor, x: Tensor, shape: tuple[int, ...]) -> Tangent:
    return sum_to(multiply(tangents[0], exp(subtract(x, y))), shape)


# logsumexp with the reduced axes kept: its derivative is the softmax, exp(x - y).
_logsumexp: Primitive = Primitive(
    "logsumexp",
    kernel("reduce", "logsumexp"),
    lambda x, shape: ((shape, x.dtype),),
    vjp=each(lambda g, y, x, shape: multiply(g, exp(subtract(x, y)))),
    jvp=_logsumexp_jvp,
)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log of the sum of exp(x) over axes, without overflow: the largest is taken out first."""
    x = as_tensor(x)
    kept, dropped = _shapes("logsumexp", x, axis)
    if x.size == 0 < math.prod(kept):
        raise ValueError(f"logsumexp: no elements in {x.shape} over axis {axis}")
    return reshape(_logsumexp(x, shape=kept), kept if keepdims else dropped)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """exp(x) divided by its sum along an axis."""
    return exp(log_softmax(x, axis))


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """x - logsumexp(x) along an axis."""
    return subtract(x, logsumexp(x, axis, keepdims=True))
