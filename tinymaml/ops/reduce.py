"""Reductions over axes. A sum is the adjoint of a broadcast; the rest is made of it, but for max and logsumexp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent, each
from tinymaml.autodiff.tensor import Array, Tensor, as_tensor
from tinymaml.ops.elementwise import exp, multiply, subtract
from tinymaml.ops.shape import (
    normal_axes,
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
        raise ValueError(f"mean: no elements in {x.shape} over axis {axis}")
    return multiply(total, total.size / x.size)


def _last_specs(x: Array) -> Sequence[Spec]:
    if x.shape[-1] == 0:
        raise ValueError(f"max: no elements along an axis of {x.shape}")
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
    x = as_tensor(x)
    kept, dropped = _shapes("max", x, axis)
    axes = normal_axes("max", axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    last = reshape(transpose(x, [*rest, *axes]), (*dropped, math.prod(x.shape[i] for i in axes)))
    return reshape(_max_last(last)[0], kept if keepdims else dropped)


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
