"""Indices: where the largest is, and labels as vectors. They are locally constant, so no derivative passes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel, view
from tinymaml.autodiff.primitive import Primitive, Spec
from tinymaml.autodiff.tensor import FLOATS, Array, Tensor, as_tensor, constant
from tinymaml.autodiff.tracing import declare_below, is_below, when_known
from tinymaml.ops.reduce import Axis, max_and_index
from tinymaml.ops.shape import (
    ARRAY,
    broadcast_to,
    normal_axis,
    reshape,
    scatter,
    swapaxes,
    take_along_axis,
    whole_number,
)

_reshape_view, _transpose_view = view("shape", "reshape"), view("shape", "transpose")


def reshaped(array: Array, shape: Sequence[int]) -> Array:
    """A view of whole numbers or booleans, which have no derivative that `reshape` could carry."""
    return _reshape_view(None, [array], {"shape": tuple(shape)})[0]


def argmax(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The place of the largest over axes, int64, the first in C order where several are equal; without axes or over
    several, its place among all of them in C order. What is not a number is largest.

    Raises:
        ValueError: there are no elements to choose from.
    """
    x = as_tensor(x)
    kept, largest, place = max_and_index(x, axis)
    index = place.data
    declare_below(index, max(x.size // max(largest.size, 1), 1))
    return constant(reshaped(index, kept if keepdims else largest.shape[:-1]))


def _top_specs(x: Array, count: int) -> Sequence[Spec]:
    return (((*x.shape[:-1], count), np.dtype(np.int64)),)


_top_last: Primitive = Primitive("top_last", kernel("reduce", "top_last"), _top_specs, vjp=None, jvp=None)


def top_k(x: Any, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """The k largest along an axis, the largest first, and their places there, int64; of equal ones the first comes
    first, and what is not a number is largest. Derivatives pass the values.

    Raises:
        ValueError: k is not in [0, length of the axis].
    """
    x, k = as_tensor(x), whole_number("top_k", "k", k)
    axis = normal_axis("top_k", axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"top_k: k must be in [0, {x.shape[axis]}], the length of axis {axis} of {x.shape}, got {k}")
    last = x.ndim - 1
    if axis != last:
        x = swapaxes(x, axis, last)
    index = _top_last(x, count=k).data
    declare_below(index, x.shape[last])
    values = take_along_axis(x, index, last)
    if axis == last:
        return values, constant(index)
    order = list(range(x.ndim))
    order[axis], order[last] = last, axis
    (moved,) = _transpose_view(None, [index], {"axes": tuple(order)})
    return swapaxes(values, axis, last), constant(moved)


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> Tensor:
    """A vector for every label, 1 at its place and 0 elsewhere: integer labels[...] -> [..., classes], a constant.

    Raises:
        ValueError: a label is not in [0, classes).
        TypeError: labels that are not integers, a dtype that is neither float32 nor float64.
    """
    labels, classes, dtype = as_tensor(labels).data, whole_number("one_hot", "classes", classes), np.dtype(dtype)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels must be integers, got {labels.dtype}")
    if dtype not in FLOATS:
        raise TypeError(f"one_hot: dtype must be float32 or float64, got {dtype}")
    check_labels("one_hot", labels, classes)
    flat = reshaped(labels, (labels.size,))
    ones = broadcast_to(constant(1.0, dtype), (labels.size,))
    rows = scatter(ones, np.arange(labels.size), flat, index=(ARRAY, ARRAY), shape=(labels.size, classes))
    return reshape(rows, (*labels.shape, classes))


def check_labels(name: str, labels: Array, classes: int) -> None:
    """Raises ValueError for a label that is not in [0, classes): now, or in a recorded step before each replay."""

    def in_range(labels: Array) -> None:
        if labels.size and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(f"{name}: labels must be in [0, {classes}), got {labels.min()} to {labels.max()}")

    if not is_below(labels, classes):
        when_known(labels, in_range, needed=True)
