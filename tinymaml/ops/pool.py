"""Pooling of images, channels last. Each pooling is linear, given where the largest were: its adjoint is all it takes.

max_pool    the largest of every window, and where in it that was, an integer residual
pool_take   of every window the number at a place           } each other's adjoint, and linear:
pool_put    numbers put back to their places                } their own tangent rules
avg_pool    the mean of every window's real pixels          } each other's adjoint, and linear
avg_spread  means spread evenly over their windows          }
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent
from tinymaml.autodiff.tensor import Array, Tensor, as_tensor
from tinymaml.ops.conv import Padding, Pair, explicit_padding, output_size, pair
from tinymaml.ops.reduce import mean


def _pooled_shape(x: Array, window: Pair, stride: Pair, padding: Padding) -> tuple[int, ...]:
    size = output_size((x.shape[2], x.shape[3]), window, stride, padding)
    return (*x.shape[:2], *size, x.shape[4])


def _linear(name: str, specs: Callable[..., Sequence[Spec]], adjoint: Callable[..., Tensor], places: bool) -> Primitive:
    """Linear in its first input; the second, if any, says at which places."""

    def vjp(wanted: Sequence[bool], g: Tensor, y: Tensor, x: Tensor, *at: Tensor, **static: Any) -> Sequence[Tangent]:
        return [adjoint(g, x, *at, **static), *[None] * len(at)]

    def jvp(tangents: Sequence[Tangent], y: Tensor, x: Tensor, *at: Tensor, **static: Any) -> Tangent:
        return None if tangents[0] is None else primitive(tangents[0], *at, **static)

    primitive = Primitive(name, kernel("pool", name), specs, vjp, jvp, integer_inputs=(1,) if places else ())
    return primitive


def _size(x: Tensor) -> Pair:
    return x.shape[2], x.shape[3]


_take: Primitive = _linear(
    "pool_take",
    lambda x, at, size, **static: ((at.shape, x.dtype),),
    lambda g, x, at, **static: _put(g, at, **static),
    places=True,
)
_put: Primitive = _linear(
    "pool_put",
    lambda g, at, size, **static: (((*g.shape[:2], *size, g.shape[4]), g.dtype),),
    lambda h, g, at, **static: _take(h, at, **static),
    places=True,
)


def _max_specs(x: Array, *, window: Pair, stride: Pair, padding: Padding) -> Sequence[Spec]:
    shape = _pooled_shape(x, window, stride, padding)
    return (shape, x.dtype), (shape, np.dtype(np.int8 if math.prod(window) <= 127 else np.int32))


def _max_vjp(wanted: Sequence[bool], g: Tensor, ys: Any, x: Tensor, **static: Any) -> Sequence[Tangent]:
    return [_put(g, ys[1], size=_size(x), **static)]


def _max_jvp(tangents: Sequence[Tangent], ys: Any, x: Tensor, **static: Any) -> tuple[Tangent, ...]:
    return (_take(tangents[0], ys[1], size=_size(x), **static),)


_max_pool: Primitive = Primitive("max_pool", kernel("pool", "max_pool"), _max_specs, _max_vjp, _max_jvp, outputs=1)

_avg_pool: Primitive = _linear(
    "avg_pool",
    lambda x, size, **static: ((_pooled_shape(x, **static), x.dtype),),
    lambda g, x, **static: _avg_spread(g, **static),
    places=False,
)
_avg_spread: Primitive = _linear(
    "avg_spread",
    lambda g, size, **static: (((*g.shape[:2], *size, g.shape[4]), g.dtype),),
    lambda h, g, **static: _avg_pool(h, **static),
    places=False,
)


def _arguments(name: str, x: Any, size: Any, stride: Any, padding: Any) -> tuple[Tensor, dict[str, Any]]:
    x = as_tensor(x)
    if x.ndim != 5:
        raise ValueError(f"{name}: x must be [tasks, images, height, width, channels], got {x.shape}")
    if 0 in _size(x):
        raise ValueError(f"{name}: images of no pixels, {x.shape}")
    window = pair(f"{name}: size", size)
    stride = window if stride is None else pair(f"{name}: stride", stride)
    padding = explicit_padding(padding, _size(x), window, stride)
    for n, (before, after) in zip(window, padding, strict=True):
        if max(before, after) >= n:
            raise ValueError(f"{name}: padding {padding} would make windows of {window} that hold no pixel")
    return x, {"window": window, "stride": stride, "padding": padding}


def max_pool2d(
    x: Any, size: int | Sequence[int] = 2, stride: int | Sequence[int] | None = None, padding: Any = "VALID"
) -> Tensor:
    """The largest number of every window, channel by channel. Of equal ones the first in reading order has the
    derivative.

    Args:
        x: [T, N, H, W, C].
        size: of the window: one number, or (height, width).
        stride: from window to window; the window's size if left out.
        padding: "VALID" (what does not fill a window is left out), "SAME", or ((top, bottom), (left, right)), smaller
            than the window; no zeros: what is beyond the image is never the largest.

    Returns:
        [T, N, P, Q, C].

    Raises:
        ValueError: shapes that do not fit, a bad size, stride or padding.
    """
    x, static = _arguments("max_pool2d", x, size, stride, padding)
    return _max_pool(x, **static)[0]


def avg_pool2d(
    x: Any, size: int | Sequence[int] = 2, stride: int | Sequence[int] | None = None, padding: Any = "VALID"
) -> Tensor:
    """The mean of every window, over the pixels of it that are in the image; arguments as for `max_pool2d`."""
    x, static = _arguments("avg_pool2d", x, size, stride, padding)
    return _avg_pool(x, size=_size(x), **static)


def spatial_mean(x: Any) -> Tensor:
    """The mean over an image's pixels: x[T, N, H, W, C] -> [T, N, C]. Raises ValueError unless x has five axes."""
    x = as_tensor(x)
    if x.ndim != 5:
        raise ValueError(f"spatial_mean: x must be [tasks, images, height, width, channels], got {x.shape}")
    return mean(x, (2, 3))
