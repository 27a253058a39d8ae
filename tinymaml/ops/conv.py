"""Convolution of images, channels last: three primitives, closed under differentiation.

y(x, w), the gradient by x and the gradient by w are the three partials of one trilinear form <y(x, w), g>:

    conv2d(x, w)        x[T, N, H, W, C], w[T, kh, kw, C, O] -> y[T, N, P, Q, O]
    conv2d_dx(g, w)     g like y                             -> like x
    conv2d_dw(x, g)                                          -> like w

Each is linear in both operands, and its partials are the other two: three kernels serve every order and both modes.
All take a third operand that is added to the result, so that the two terms of a tangent need no pass of their own.
A task axis of length 1 is read for every task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent
from tinymaml.autodiff.tensor import Array, Tensor, as_tensor
from tinymaml.ops.elementwise import add
from tinymaml.ops.shape import broadcast_to, sum_to

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def _tasks(name: str, a: Array, b: Array) -> int:
    if a.ndim != 5 or b.ndim != 5:
        raise ValueError(f"{name}: five axes are needed, [tasks, images, height, width, channels] and "
                         f"[tasks, height, width, inputs, outputs], got {a.shape} and {b.shape}")  # fmt: skip
    if a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0]):
        raise ValueError(f"{name}: one operand is for {a.shape[0]} tasks, the other for {b.shape[0]}")
    return max(a.shape[0], b.shape[0]) if 0 not in (a.shape[0], b.shape[0]) else 0


def output_size(size: Pair, kernel_size: Pair, stride: Pair, padding: Padding) -> Pair:
    """Height and width of the result of a convolution or a pooling. Raises ValueError if the kernel does not fit."""
    sizes = []
    for n, k, s, (before, after) in zip(size, kernel_size, stride, padding, strict=True):
        if n + before + after < k:
            raise ValueError(f"a kernel of {kernel_size} does not fit an image of {size} with padding {padding}")
        sizes.append((n + before + after - k) // s + 1)
    return sizes[0], sizes[1]


def _y_specs(x: Array, w: Array, c: Array | None = None, *, stride: Pair, padding: Padding) -> Sequence[Spec]:
    tasks = _tasks("conv2d", x, w)
    if x.shape[4] != w.shape[3]:
        raise ValueError(f"conv2d: x {x.shape} has {x.shape[4]} channels, w {w.shape} takes {w.shape[3]}")
    size = output_size((x.shape[2], x.shape[3]), (w.shape[1], w.shape[2]), stride, padding)
    shape = (tasks, x.shape[1], *size, w.shape[4])
    if c is not None and c.shape != shape and (c.shape[1:] != (1, 1, 1, shape[4]) or c.shape[0] not in (1, tasks)):
        raise ValueError(f"conv2d: b must be [1, 1, 1, 1, {shape[4]}] or [{tasks}, 1, 1, 1, {shape[4]}], got {c.shape}")
    return ((shape, x.dtype),)


def _dx_specs(
    g: Array, w: Array, c: Array | None = None, *, stride: Pair, padding: Padding, size: Pair
) -> Sequence[Spec]:
    return (((_tasks("conv2d_dx", g, w), g.shape[1], *size, w.shape[3]), g.dtype),)


def _dw_specs(
    x: Array, g: Array, c: Array | None = None, *, stride: Pair, padding: Padding, size: Pair
) -> Sequence[Spec]:
    return (((_tasks("conv2d_dw", x, g), *size, x.shape[4], g.shape[4]), g.dtype),)


def _bilinear(name: str, specs: Any, by_first: Callable[..., Tensor], by_second: Callable[..., Tensor]) -> Primitive:
    """A primitive f(a, b) + c, linear in a and in b, with partial(h, a, b, static) for each of them."""

    def vjp(
        wanted: Sequence[bool], h: Tensor, y: Tensor, a: Tensor, b: Tensor, *c: Tensor, **static: Any
    ) -> Sequence[Tangent]:
        da = sum_to(by_first(h, a, b, **static), a.shape) if wanted[0] else None
        db = sum_to(by_second(h, a, b, **static), b.shape) if wanted[1] else None
        return [da, db, *[sum_to(h, x.shape) if wanted[2] else None for x in c]]

    def jvp(tangents: Sequence[Tangent], y: Tensor, a: Tensor, b: Tensor, *c: Tensor, **static: Any) -> Tangent:
        da, db = tangents[:2]
        total = tangents[2] if c else None
        for first, second in ((da, b), (a, db)):
            if first is not None and second is not None:
                total = primitive(first, second, *([] if total is None else [total]), **static)
        return total if total is None else broadcast_to(total, y.shape)

    primitive = Primitive(name, kernel("conv", name), specs, vjp, jvp)
    return primitive


_Static = dict[str, Any]


def _without_size(static: _Static) -> _Static:
    return {"stride": static["stride"], "padding": static["padding"]}


def _y(x: Tensor, w: Tensor, static: _Static) -> Tensor:
    return _conv2d(x, w, **_without_size(static))


def _dx(g: Tensor, w: Tensor, like: Tensor, static: _Static) -> Tensor:
    return _conv2d_dx(g, w, **_without_size(static), size=like.shape[2:4])


def _dw(x: Tensor, g: Tensor, like: Tensor, static: _Static) -> Tensor:
    return _conv2d_dw(x, g, **_without_size(static), size=like.shape[1:3])


_conv2d: Primitive = _bilinear(
    "conv2d",
    _y_specs,
    lambda h, x, w, **static: _dx(h, w, x, static),
    lambda h, x, w, **static: _dw(x, h, w, static),
)
_conv2d_dx: Primitive = _bilinear(
    "conv2d_dx",
    _dx_specs,
    lambda h, g, w, **static: _y(h, w, static),
    lambda h, g, w, **static: _dw(h, g, w, static),
)
_conv2d_dw: Primitive = _bilinear(
    "conv2d_dw",
    _dw_specs,
    lambda h, x, g, **static: _dx(g, h, x, static),
    lambda h, x, g, **static: _y(x, h, static),
)


def pair(name: str, value: int | Sequence[int], least: int = 1) -> Pair:
    """(vertical, horizontal) from one number or two. Raises ValueError unless they are whole and >= least."""
    both = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(both) != 2 or any(not isinstance(n, Integral) or isinstance(n, bool) or n < least for n in both):
        raise ValueError(f"{name} must be a whole number >= {least}, or two of them, got {value!r}")
    return int(both[0]), int(both[1])


def explicit_padding(padding: Any, size: Pair, kernel_size: Pair, stride: Pair) -> Padding:
    """((top, bottom), (left, right)). "SAME" is TensorFlow's: ceil(n / stride) results, the odd zero comes last.

    Raises:
        ValueError: neither "SAME" nor "VALID" nor two pairs of whole numbers >= 0.
    """
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "SAME":
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel_size, stride, strict=True)]
        top, left = (total // 2 for total in totals)
        return (top, totals[0] - top), (left, totals[1] - left)
    if isinstance(padding, str) or not isinstance(padding, Sequence) or len(padding) != 2:
        raise ValueError(f'padding must be "SAME", "VALID" or ((top, bottom), (left, right)), got {padding!r}')
    return pair("padding", padding[0], 0), pair("padding", padding[1], 0)


def conv2d(
    x: Any, w: Any, b: Any = None, *, stride: int | Sequence[int] = 1, padding: str | Sequence[Any] = "SAME"
) -> Tensor:
    """Convolution (correlation, as in all of deep learning) of the images of every task.

    Args:
        x: [T, N, H, W, C].
        w: [T, kh, kw, C, O], or [1, kh, kw, C, O] shared by the tasks.
        b: added to each pixel: [1, 1, 1, 1, O] or [T, 1, 1, 1, O].
        stride: one number, or (vertical, horizontal).
        padding: "SAME" (ceil(H / stride) rows come out; where the zeros are odd, one more comes last), "VALID" (none),
            or ((top, bottom), (left, right)). The zeros take part: a weight that is not finite gives NaN where it
            meets one.

    Returns:
        [T, N, P, Q, O].

    Raises:
        ValueError: shapes that do not fit, a kernel larger than the padded image, a bad stride or padding.
    """
    x, w = as_tensor(x), as_tensor(w)
    _tasks("conv2d", x.data, w.data)
    stride, kernel_size = pair("stride", stride), (w.shape[1], w.shape[2])
    if 0 in kernel_size:
        raise ValueError(f"conv2d: w {w.shape} is a kernel of no pixels")
    padding = explicit_padding(padding, (x.shape[2], x.shape[3]), kernel_size, stride)
    return _conv2d(x, w, *([] if b is None else [b]), stride=stride, padding=padding)


def conv_transpose2d(
    x: Any, w: Any, b: Any = None, *, stride: int | Sequence[int] = 1, padding: str | Sequence[Any] = "SAME"
) -> Tensor:
    """The adjoint of `conv2d` in its images, with the same kernel, stride and padding: images grow by the stride.

    Args:
        x: [T, N, P, Q, I].
        w: [T, kh, kw, O, I], or [1, kh, kw, O, I] shared by the tasks: the kernel of the convolution from O to I
            channels of which this is the adjoint.
        b: added to each pixel: [1, 1, 1, 1, O] or [T, 1, 1, 1, O].
        stride: one number, or (vertical, horizontal).
        padding: of that convolution: "SAME" (P * stride rows come out), "VALID" ((P - 1) * stride + kh), or
            ((top, bottom), (left, right)), which takes as many rows off that.

    Returns:
        [T, N, H, W, O].

    Raises:
        ValueError: shapes that do not fit, a padding that leaves nothing, a bad stride or padding.
    """
    x, w = as_tensor(x), as_tensor(w)
    tasks = _tasks("conv_transpose2d", x.data, w.data)
    stride, kernel_size, channels = pair("stride", stride), (w.shape[1], w.shape[2]), w.shape[3]
    if x.shape[4] != w.shape[4]:
        raise ValueError(f"conv_transpose2d: x {x.shape} has {x.shape[4]} channels, w {w.shape} takes {w.shape[4]}")
    if 0 in kernel_size:
        raise ValueError(f"conv_transpose2d: w {w.shape} is a kernel of no pixels")
    enlarged = (x.shape[2] * stride[0], x.shape[3] * stride[1])
    around = explicit_padding(padding, enlarged, kernel_size, stride)
    size = enlarged
    if padding != "SAME":
        lengths = zip(x.shape[2:4], stride, kernel_size, around, strict=True)
        rows, columns = [(n - 1) * s + k - sum(zeros) for n, s, k, zeros in lengths]
        size = (rows, columns)
    if min(size) < 1:
        raise ValueError(f"conv_transpose2d: padding {padding} leaves nothing of an image of {x.shape[2:4]}")
    y = _conv2d_dx(x, w, stride=stride, padding=around, size=size)
    if b is None:
        return y
    b = as_tensor(b)
    if b.shape[1:] != (1, 1, 1, channels) or b.shape[0] not in (1, tasks):
        expected = f"[1, 1, 1, 1, {channels}] or [{tasks}, 1, 1, 1, {channels}]"
        raise ValueError(f"conv_transpose2d: b must be {expected}, got {b.shape}")
    return add(y, b)
