"""Products of matrices: one primitive, closed under differentiation.

`linear(a, b, c) = op(a) op(b) + c` on stacks of matrices, where op transposes or not. The gradients in a and in b are
the same primitive on other operands, its tangent is two of them, the second adding to the first. So one kernel serves
every order and both modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent
from tinymaml.autodiff.tensor import Array, Tensor, as_tensor
from tinymaml.ops.elementwise import add, broadcast_shapes
from tinymaml.ops.shape import broadcast_to, expand_dims, reshape, squeeze, sum_to, swapaxes


def _specs(a: Array, b: Array, c: Array | None = None, *, ta: bool, tb: bool) -> Sequence[Spec]:
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError(f"matrix product: {a.shape} and {b.shape} need two axes or more; see matmul for vectors")
    n, k = (a.shape[-1], a.shape[-2]) if ta else a.shape[-2:]
    k2, o = (b.shape[-1], b.shape[-2]) if tb else b.shape[-2:]
    if k != k2:
        raise ValueError(f"matrix product: {a.shape}{'ᵀ' * ta} and {b.shape}{'ᵀ' * tb} do not fit: {k} is not {k2}")
    lead = a.shape[:-2]
    if lead != b.shape[:-2]:
        try:
            lead = broadcast_shapes(lead, b.shape[:-2])
        except ValueError:
            raise ValueError(f"matrix product: {a.shape} and {b.shape} have different leading axes") from None
    shape = (*lead, n, o)
    if c is not None and c.shape != shape:
        sizes = zip(c.shape, shape[len(shape) - c.ndim :], strict=True) if c.ndim <= len(shape) else [(0, 1)]
        if any(n not in (1, m) for n, m in sizes):
            raise ValueError(f"matrix product: {c.shape} is added to {shape}, to which it does not broadcast")
    return ((shape, a.dtype),)


def _vjp(
    wanted: Sequence[bool], g: Tensor, y: Tensor, a: Tensor, b: Tensor, c: Tensor | None = None, *, ta: bool, tb: bool
) -> Sequence[Tangent]:
    da = db = dc = None
    if wanted[0]:
        da = sum_to(linear(b, g, ta=tb, tb=True) if ta else linear(g, b, tb=not tb), a.shape)
    if wanted[1]:
        db = sum_to(linear(g, a, ta=True, tb=ta) if tb else linear(a, g, ta=not ta), b.shape)
    if c is None:
        return da, db
    if wanted[2]:
        dc = sum_to(g, c.shape)
    return da, db, dc


def _jvp(
    tangents: Sequence[Tangent], y: Tensor, a: Tensor, b: Tensor, c: Tensor | None = None, *, ta: bool, tb: bool
) -> Tangent:
    da, db = tangents[:2]
    total = None if c is None else tangents[2]
    if da is not None:
        total = linear(da, b, total, ta=ta, tb=tb)
    if db is not None:
        total = linear(a, db, total, ta=ta, tb=tb)
    return total if total is None else broadcast_to(total, y.shape)


_linear: Primitive = Primitive("linear", kernel("linear", "linear"), _specs, _vjp, _jvp)


def linear(a: Any, b: Any, c: Any = None, *, ta: bool = False, tb: bool = False) -> Tensor:
    """op(a) op(b) + c for stacks of matrices a[..., n, k] and b[..., k, o]; `ta`, `tb` transpose the last two axes
    first.

    Leading axes broadcast; c broadcasts to the result.
    """
    return _linear(a, b, ta=ta, tb=tb) if c is None else _linear(a, b, c, ta=ta, tb=tb)


def dense(x: Any, w: Any, b: Any = None) -> Tensor:
    """A layer of units on the task axis: x[T, N, I] w[T, I, O] + b[T, 1, O] -> [T, N, O].

    Weights of task axis 1 are shared by all tasks: then tasks and examples together are the rows of one large product.

    Raises:
        ValueError: not three axes, or shapes that do not fit.
    """
    x, w = as_tensor(x), as_tensor(w)
    for name, value in (("x", x), ("w", w)) if b is None else (("x", x), ("w", w), ("b", as_tensor(b))):
        if value.ndim != 3:
            raise ValueError(f"dense: {name} needs three axes, [tasks, rows, columns], got {value.shape}")
        if value.shape[0] not in (1, x.shape[0]) and x.shape[0] != 1:
            raise ValueError(f"dense: {name} is for {value.shape[0]} tasks, x for {x.shape[0]}")
    if w.shape[0] == 1 < x.shape[0] and (b is None or b.shape[0] == 1):
        rows = reshape(x, (1, x.shape[0] * x.shape[1], x.shape[2]))
        return reshape(linear(rows, w, b), (x.shape[0], x.shape[1], w.shape[2]))
    if b is not None and b.shape[0] not in (1, max(x.shape[0], w.shape[0])):
        return add(linear(x, w), b)  # only the bias is per task
    return linear(x, w, b)


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product a @ b, with NumPy's rules: vectors are rows or columns, leading axes broadcast.

    Raises:
        ValueError: a number, or shapes that do not fit.
    """
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul: a number is not a matrix; use *")
    if a.ndim == 1:
        return squeeze(matmul(expand_dims(a, 0), b), -2 if b.ndim > 1 else 0)
    if b.ndim == 1:
        return squeeze(matmul(a, expand_dims(b, 1)), -1)
    return linear(a, b)


def matrix_transpose(x: Any) -> Tensor:
    """The last two axes exchanged."""
    return swapaxes(x, -1, -2)
