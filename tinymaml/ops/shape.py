"""Moving numbers about: views (reshape, transpose, broadcast, slice), their adjoints, gather and scatter, joining.

All are linear, so each is its own tangent rule and the adjoint of another of them:
reshape <-> reshape, transpose <-> transpose, broadcast_to <-> sum_to, slice and gather <-> scatter, concatenate <->
slices.
"""

from __future__ import annotations

import itertools
import math
import operator
import sys
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel, number, view
from tinymaml.autodiff.operators import public_name
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent
from tinymaml.autodiff.tensor import (
    FLOATS,
    Array,
    Tensor,
    as_array,
    as_tensor,
    constant,
    elements,
    floating_in,
    is_array,
    joined,
)
from tinymaml.autodiff.tracing import Traced, declare_entries

Shape = tuple[int, ...]


def _linear(name: str, run: Any, specs: Any, adjoint: Callable[..., Tangent], integer_inputs: Shape = ()) -> Primitive:
    """A primitive that is linear in its first input and takes only integers beside it."""
    primitive = Primitive(
        name,
        run,
        specs,
        vjp=lambda wanted, g, y, *inputs, **static: (
            adjoint(g, *inputs, **static),
            *[None for _ in inputs[1:]],
        ),
        jvp=lambda tangents, y, x, *rest, **static: primitive(tangents[0], *rest, **static),
        integer_inputs=integer_inputs,
    )
    return primitive


# Views.

_reshape: Primitive = _linear("reshape", view("shape", "reshape"), None, lambda g, x, shape: _reshape(g, shape=x.shape))
_transpose: Primitive = _linear(
    "transpose",
    view("shape", "transpose"),
    None,
    lambda g, x, axes: _transpose(g, axes=tuple(sorted(range(len(axes)), key=axes.__getitem__))),
)
_broadcast_to: Primitive = _linear(
    "broadcast_to", view("shape", "broadcast_to"), None, lambda g, x, shape: sum_to(g, x.shape)
)
_slice: Primitive = _linear(
    "slice", view("shape", "slice"), None, lambda g, x, index: scatter(g, index=index, shape=x.shape)
)


def reshape(x: Any, shape: int | Sequence[int]) -> Tensor:
    """The same numbers in another shape, in C order; one length may be -1."""
    x = as_tensor(x)
    wanted = whole_numbers("reshape", "shape", shape)
    known = math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and known and x.size % known == 0:
        wanted = tuple(x.size // known if n == -1 else n for n in wanted)
    if any(n < 0 for n in wanted) or math.prod(wanted) != x.size:
        raise ValueError(f"reshape: {x.shape} has {x.size} elements, which do not fit {shape}")
    return x if wanted == x.shape else _reshape(x, shape=wanted)


def transpose(x: Any, axes: int | Sequence[int] | None = None) -> Tensor:
    """The axes in another order; without `axes` reversed."""
    x = as_tensor(x)
    if axes is None:
        return _transpose(x, axes=tuple(range(x.ndim - 1, -1, -1)))
    order = tuple([normal_axis("transpose", a, x.ndim) for a in whole_numbers("transpose", "axes", axes)])
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes {axes} are not an order of the {x.ndim} axes")
    return _transpose(x, axes=order)


def swapaxes(x: Any, one: int, other: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x)
    order = list(range(x.ndim))
    one, other = normal_axis("swapaxes", one, x.ndim), normal_axis("swapaxes", other, x.ndim)
    order[one], order[other] = other, one
    return _transpose(x, axes=tuple(order))


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Tensor:
    """x repeated along new axes and axes of length 1, as a view with stride 0."""
    x = as_tensor(x)
    shape = whole_numbers("broadcast_to", "shape", shape)
    if x.shape == shape:
        return x
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        raise ValueError(f"{public_name('broadcast_to')}: {x.shape} does not broadcast to {shape}")
    return _broadcast_to(x, shape=shape)


def _sum_to_specs(x: Array, shape: Shape) -> Sequence[Spec]:
    return ((shape, x.dtype),)


_sum_to: Primitive = _linear(
    "sum_to", kernel("shape", "sum_to"), _sum_to_specs, lambda g, x, shape: broadcast_to(g, x.shape)
)


def sum_to(x: Tensor, shape: Shape) -> Tensor:
    """The adjoint of `broadcast_to`: the sum over the axes along which `shape` would be broadcast to x's shape."""
    return x if x.shape == shape else _sum_to(x, shape=shape)


def ones_like(x: Any) -> Tensor:
    """A constant of ones with the shape and dtype of x, as a view with stride 0."""
    x = as_tensor(x)
    return broadcast_to(constant(number(1, x.data)), x.shape)


def zeros_like(x: Any) -> Tensor:
    """A constant of zeros with the shape and dtype of x, as a view with stride 0."""
    x = as_tensor(x)
    return broadcast_to(constant(number(0, x.data)), x.shape)


def expand_dims(x: Any, axis: int) -> Tensor:
    """A new axis of length 1."""
    x = as_tensor(x)
    axis = normal_axis("expand_dims", axis, x.ndim + 1)
    return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Without axes of length 1: all of them, or those named."""
    x = as_tensor(x)
    drop = {i for i, n in enumerate(x.shape) if n == 1} if axis is None else set(normal_axes("squeeze", axis, x.ndim))
    if any(x.shape[i] != 1 for i in drop):
        raise ValueError(f"squeeze: axes {axis} of {x.shape} are not all of length 1")
    return reshape(x, [n for i, n in enumerate(x.shape) if i not in drop])


# Indexing: `index` is a tuple of slices, integers, None, Ellipsis, and `ARRAY` where an index array is an input.


class _Array:
    """Marks the place of an index array in a static index."""

    def __repr__(self) -> str:
        return "ARRAY"


ARRAY = _Array()


def fill(index: tuple[Any, ...], arrays: Sequence[Array]) -> tuple[Any, ...]:
    """The index with its arrays put in."""
    rest = iter(arrays)
    return tuple([next(rest) if part is ARRAY else part for part in index])


def _gather_specs(x: Array, *arrays: Array, index: tuple[Any, ...]) -> Sequence[Spec]:
    empty = np.broadcast_to(np.empty((), np.bool_), x.shape)  # indexing it costs no reading of x
    first = np.zeros((), np.intp)
    arrays = tuple([np.broadcast_to(first, a.shape) if isinstance(a, Traced) else a for a in arrays])
    return ((empty[fill(index, arrays)].shape, x.dtype),)


_gather: Primitive = _linear(
    "gather",
    kernel("shape", "gather"),
    _gather_specs,
    lambda g, x, *arrays, index: scatter(g, *arrays, index=index, shape=x.shape),
    integer_inputs=tuple(range(1, 32)),
)
scatter: Primitive = _linear(
    "scatter",
    kernel("shape", "scatter"),
    lambda g, *arrays, index, shape: ((shape, g.dtype),),
    lambda g, x, *arrays, index, shape: _gather(g, *arrays, index=index) if arrays else _slice(g, index=index),
    integer_inputs=tuple(range(1, 32)),
)


def _parse(index: Any, shape: Shape) -> tuple[tuple[Any, ...], list[Array]]:
    """A NumPy index as its static part and its arrays of integers; a mask becomes the places where it is true."""
    static: list[Any] = []
    arrays: list[Array] = []
    plain: list[Any] = []
    masks = False
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, int | np.integer) and not isinstance(part, bool):
            static.append(int(part))
        elif part is None or isinstance(part, slice | EllipsisType):
            static.append(part)
        else:
            array = part.data if isinstance(part, Tensor) else as_array(part)
            if array.dtype == np.bool_ and array.ndim:
                masks, part, integers = True, array, array.nonzero()
            elif array.dtype.kind in "iu" or array.size == 0:
                part = array if array.dtype.kind in "iu" else array.astype(np.intp)
                integers = (part,)
            else:
                raise TypeError(f"an index must be of integers or masks, got {array.dtype} of shape {array.shape}")
            static += [ARRAY] * len(integers)
            arrays += integers
        plain.append(part)
    if masks:  # NumPy raises IndexError if one does not fit, which the places where it is true would not
        np.broadcast_to(np.False_, shape)[tuple(plain)]
    return tuple(static), arrays


def getitem(x: Any, index: Any) -> Tensor:
    """x[index] as in NumPy: slices are views; integer and boolean arrays gather copies, of labels too. Indices carry no
    derivative."""
    x = as_tensor(x)
    static, arrays = _parse(index, x.shape)
    if arrays and x.dtype not in FLOATS:
        return _entries(_gather, [x.data], arrays, index=static)
    return _gather(x, *arrays, index=static) if arrays else _slice(x, index=static)


def take(x: Any, indices: Any, axis: int) -> Tensor:
    """The entries at integer `indices` (any shape) along an axis, as `numpy.take`."""
    x = as_tensor(x)
    axis = normal_axis("take", axis, x.ndim)
    return getitem(x, (*[slice(None)] * axis, _integers("take", indices)))


def take_along_axis(x: Any, indices: Any, axis: int) -> Tensor:
    """For every place of `indices` the entry of x there along an axis, as `numpy.take_along_axis`: the label's
    logit."""
    x, picks = as_tensor(x), _integers("take_along_axis", indices)
    axis = normal_axis("take_along_axis", axis, x.ndim)
    if picks.ndim != x.ndim:
        raise ValueError(f"take_along_axis: indices of shape {picks.shape} need as many axes as {x.shape}")
    grid = [np.arange(n).reshape([-1 if j == i else 1 for j in range(x.ndim)]) for i, n in enumerate(x.shape)]
    return getitem(x, tuple(picks if i == axis else grid[i] for i in range(x.ndim)))


def scatter_add(x: Any, index: Any, updates: Any) -> Tensor:
    """A new tensor: x with `updates` added at x[index]; where an index comes twice, both are added."""
    x = as_tensor(x)
    static, arrays = _parse(index, x.shape)
    ((shape, _),) = _gather_specs(x.data, *arrays, index=static)
    return x + scatter(broadcast_to(updates, shape), *arrays, index=static, shape=x.shape)


def _integers(name: str, indices: Any) -> Array:
    array = indices.data if isinstance(indices, Tensor) else as_array(indices)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: indices must be integers, got {array.dtype}")
    return array


# Joining.


def _concatenate_specs(*arrays: Array, axis: int) -> Sequence[Spec]:
    first = arrays[0].shape
    for array in arrays[1:]:
        if array.ndim != len(first) or any(
            n != m for i, (n, m) in enumerate(zip(array.shape, first, strict=True)) if i != axis
        ):
            raise ValueError(f"{public_name('concatenate')}: {array.shape} and {first} differ in more than axis {axis}")
    return (((*first[:axis], sum(array.shape[axis] for array in arrays), *first[axis + 1 :]), arrays[0].dtype),)


def _concatenate_vjp(wanted: Sequence[bool], g: Tensor, y: Tensor, *inputs: Tensor, axis: int) -> Sequence[Tangent]:
    ends = np.cumsum([x.shape[axis] for x in inputs]).tolist()
    lead = (slice(None),) * axis
    return [
        _slice(g, index=(*lead, slice(end - x.shape[axis], end))) if want else None
        for want, end, x in zip(wanted, ends, inputs, strict=True)
    ]


def _concatenate_jvp(tangents: Sequence[Tangent], y: Tensor, *inputs: Tensor, axis: int) -> Tangent:
    zero = constant(0, y.dtype)
    parts = [broadcast_to(zero, x.shape) if t is None else t for t, x in zip(tangents, inputs, strict=True)]
    return _concatenate(*parts, axis=axis)


_concatenate: Primitive = Primitive(
    "concatenate", kernel("shape", "concatenate"), _concatenate_specs, _concatenate_vjp, _concatenate_jvp
)


def concatenate(tensors: Any, axis: int = 0) -> Tensor:
    """Tensors one behind the other along an axis they have."""
    parts = [joined(x) for x in tensors]
    if not parts:
        raise ValueError("concatenate: at least one tensor is needed")
    axis = normal_axis("concatenate", axis, as_tensor(parts[0]).ndim)
    if all(is_array(x) or isinstance(x, Tensor) for x in parts):
        arrays = [as_tensor(x).data for x in parts]
        if len({x.dtype for x in arrays}) == 1 and arrays[0].dtype not in FLOATS:  # labels
            return _entries(_concatenate, arrays, [], axis=axis)
    return _concatenate(*parts, axis=axis)


def _entries(primitive: Primitive, sources: Sequence[Array], others: Sequence[Array], **static: Any) -> Tensor:
    """Entries of arrays of whole numbers, by which no derivative is ever taken."""
    assert primitive.specs is not None  # it has a kernel: it is no view
    arrays = [*sources, *others]
    (result,) = primitive.kernel(primitive.specs(*arrays, **static), arrays, static)
    declare_entries(result, tuple(sources))
    return constant(result)


def _ranges(x: Any, sizes: Shape, axis: int) -> list[tuple[Any, ...]]:
    """The index of each of the parts along an axis."""
    ends = np.cumsum(sizes).tolist()
    return [(*[slice(None)] * axis, slice(end - n, end)) for end, n in zip(ends, sizes, strict=True)]


def _split_kernel(specs: Any, ins: Sequence[Array], static: dict[str, Any]) -> tuple[Array, ...]:
    return tuple([_slice.kernel(None, ins, {"index": index})[0] for index in _ranges(ins[0], **static)])


def _split_vjp(
    wanted: Sequence[bool], gs: Sequence[Tangent], ys: Sequence[Tensor], x: Tensor, sizes: Shape, axis: int
) -> Sequence[Tangent]:
    zero = constant(0, x.dtype)
    return [_concatenate(*[broadcast_to(zero, y.shape) if g is None else g for g, y in zip(gs, ys, strict=True)],
                         axis=axis)]  # fmt: skip


# Views side by side of all of x: beside slices one by one, its adjoint is one concatenation and no sum.
_split: Primitive = Primitive(
    "split",
    _split_kernel,
    None,
    _split_vjp,
    jvp=lambda tangents, ys, x, sizes, axis: _split(tangents[0], sizes=sizes, axis=axis),
    outputs=sys.maxsize,  # all
)


def split(x: Any, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Parts along an axis, as views: as many of one length as `sections` says, or cut before each of the places that
    it lists, in order. Raises ValueError for parts that do not come out even, or places that are out of order."""
    x = as_tensor(x)
    axis = normal_axis("split", axis, x.ndim)
    length = x.shape[axis]
    if isinstance(sections, Sequence):
        ends = [0, *whole_numbers("split", "sections", sections), length]
        sizes = tuple([end - start for start, end in itertools.pairwise(ends)])
    else:
        count = whole_number("split", "sections", sections)
        sizes = (length // count,) * count if count > 0 and length % count == 0 else (-1,)
    if min(sizes) < 0:
        raise ValueError(f"split: {sections} does not say how axis {axis} of {x.shape} is cut")
    if len(sizes) == 1:
        return [x]
    return list(_split(x, sizes=sizes, axis=axis))


def stack(tensors: Any, axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis."""
    tensors = list(tensors)
    dtype = floating_in(tensors)
    parts = [_with_numbers_of(dtype, x) for x in tensors]
    if not parts:
        raise ValueError("stack: at least one tensor is needed")
    for x in parts:
        if x.shape != parts[0].shape:
            got = f"{parts[0].shape} and {x.shape}"
            raise ValueError(f"{public_name('stack')}: tensors of one shape are needed, got {got}")
    return _concatenate(*[expand_dims(x, axis) for x in parts], axis=normal_axis("stack", axis, parts[0].ndim + 1))


def _with_numbers_of(dtype: Any, x: Any) -> Tensor:
    """x as a tensor; if it is of numbers alone, they take the dtype, if there is one."""
    numbers_alone = not any(isinstance(part, Tensor) or is_array(part) for part in elements(x))
    return constant(x, dtype) if numbers_alone and dtype is not None else as_tensor(x)


def pad(x: Any, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros around x: `widths` has (before, after) for every axis."""
    x = as_tensor(x)
    pairs = [whole_numbers("pad", "widths", pair) for pair in widths]
    if len(pairs) != x.ndim or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ValueError(f"pad: expected (before, after) >= 0 for each of {x.ndim} axes, got {widths}")
    index = tuple(slice(before, before + n) for (before, _), n in zip(pairs, x.shape, strict=True))
    return scatter(x, index=index, shape=tuple(b + n + a for (b, a), n in zip(pairs, x.shape, strict=True)))


# Axes.


def whole_number(name: str, what: str, value: Any) -> int:
    """An argument as an int: anything that can be an index, but for booleans. Raises TypeError for what cannot."""
    if type(value) is int:
        return value
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{public_name(name)}: {what} must be of whole numbers, got {value!r}")


def whole_numbers(name: str, what: str, values: Any) -> Shape:
    """One or several as ints; see `whole_number`."""
    if type(values) is int:
        return (values,)
    if type(values) is tuple:
        for n in values:
            if type(n) is not int:
                break
        else:  # as it nearly always is
            return values
    try:
        parts = tuple(values)
    except TypeError:
        parts = (values,)
    return tuple([whole_number(name, what, n) for n in parts])


def normal_axis(name: str, axis: Any, ndim: int) -> int:
    """An axis counted from the front. Raises ValueError if there is no such axis, TypeError for no whole number."""
    number = whole_number(name, "axis", axis)
    if not -ndim <= number < ndim:
        raise ValueError(f"{public_name(name)}: axis {axis} is out of range for {ndim} axes")
    return number % ndim


def normal_axes(name: str, axis: Any, ndim: int) -> Shape:
    """Axes counted from the front, in order, of one or several; None means all."""
    if axis is None:
        return tuple(range(ndim))
    axes = [normal_axis(name, a, ndim) for a in whole_numbers(name, "axis", axis)]
    if len(set(axes)) != len(axes):
        raise ValueError(f"{public_name(name)}: an axis is named twice in {axis}")
    return tuple(sorted(axes))
