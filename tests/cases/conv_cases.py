"""Cases of the convolutions, as primitive_cases has them: odd sizes, stride > kernel, one image, one task, shared
weights."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinymaml as tm
from tests.cases.primitive_cases import Case, Source, case
from tinymaml.autodiff.primitive import REGISTRY
from tinymaml.ops.conv import explicit_padding, output_size


def _correlate(x: Any, w: Any, stride: Any, padding: Any) -> Any:
    """The definition, pixel by pixel."""
    (top, bottom), (left, right) = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right), (0, 0)))
    p, q = output_size(x.shape[2:4], w.shape[1:3], stride, padding)
    tasks = max(len(x), len(w)) if min(len(x), len(w)) else 0
    y = np.zeros((tasks, x.shape[1], p, q, w.shape[4]), np.result_type(x, w))
    for i in range(p):
        for j in range(q):
            patch = padded[:, :, i * stride[0] :, j * stride[1] :][:, :, : w.shape[1], : w.shape[2]]
            y[:, :, i, j] = (patch[..., None] * w[:, None]).sum((2, 3, 4))
    return y


class _Draw:
    """Sizes that fit together."""

    def __init__(self, s: Source) -> None:
        tasks = s.pick(1, 2, 3)
        images, channels, outputs = s.pick(1, 2, 3), s.pick(1, 2, 3, 7), s.pick(1, 2, 5)
        if max(s.sides) > 3:  # kernels are compared: all the widths of a tile
            channels, outputs = s.pick(1, 3, 7, 32), s.pick(1, 3, 17, 32, 64, 100)
        self.kernel = (s.pick(1, 2, 3), s.pick(1, 2, 3, 4))
        self.stride = (s.pick(1, 2, 3), s.pick(1, 2, 5))
        size = (self.kernel[0] + s.pick(0, 1, 2, 4), self.kernel[1] + s.pick(0, 1, 3))
        padding = s.pick("SAME", "VALID", ((1, 0), (2, 1)), ((0, 3), (0, 0)))
        self.padding = explicit_padding(padding, size, self.kernel, self.stride)
        shared = s.pick("x", "w", "none", "none")
        self.x = (1 if shared == "x" else tasks, images, *size, channels)
        self.w = (1 if shared == "w" else tasks, *self.kernel, channels, outputs)
        self.y = (tasks, images, *output_size(size, self.kernel, self.stride, self.padding), outputs)
        self.static = {"stride": self.stride, "padding": self.padding}


def _adjoint(function: Any, shape: Any, h: Any) -> Any:
    """The adjoint of a linear function of an array of this shape, applied to h, by unit vectors."""
    found = np.zeros(shape, h.dtype)
    for i in np.ndindex(*shape):
        unit = np.zeros(shape, h.dtype)
        unit[i] = 1
        found[i] = (function(unit) * h).sum()
    return found


@case
def _conv2d(s: Source) -> Case:
    d = _Draw(s)
    bias = s.pick([], [(1, 1, 1, 1, d.y[4])], [(d.y[0], 1, 1, 1, d.y[4])], [d.y])
    arrays = (s.normal(d.x), s.normal(d.w), *[s.normal(shape) for shape in bias])

    def reference(x: Any, w: Any, c: Any = 0) -> Any:
        return _correlate(x, w, d.stride, d.padding) + c

    return Case(lambda *xs: REGISTRY["conv2d"](*xs, **d.static), arrays, reference)


@case
def _conv2d_dx(s: Source) -> Case:
    d = _Draw(s)
    full = (d.y[0], *d.x[1:])
    c = [s.normal(full)] if s.pick(True, False) else []

    def reference(g: Any, w: Any, c: Any = 0) -> Any:
        g = np.broadcast_to(g, d.y)
        return _adjoint(lambda x: _correlate(x, w, d.stride, d.padding), full, g) + c

    def function(*xs: Any) -> Any:
        return REGISTRY["conv2d_dx"](*xs, **d.static, size=d.x[2:4])

    g = (1 if d.w[0] > 1 and s.pick(True, False) else d.y[0], *d.y[1:])
    return Case(function, (s.normal(g), s.normal(d.w), *c), reference)


@case
def _conv2d_dw(s: Source) -> Case:
    d = _Draw(s)
    full = (d.y[0], *d.w[1:])
    c = [s.normal(full)] if s.pick(True, False) else []

    def reference(x: Any, g: Any, c: Any = 0) -> Any:
        return _adjoint(lambda w: _correlate(x, w, d.stride, d.padding), full, g) + c

    def function(*xs: Any) -> Any:
        return REGISTRY["conv2d_dw"](*xs, **d.static, size=d.kernel)

    return Case(function, (s.normal(d.x), s.normal(d.y), *c), reference)


def _conv_transpose2d(s: Source) -> Case:
    tasks, inputs, outputs = s.pick(1, 2), s.pick(1, 2), s.pick(1, 3)
    kernel, stride = (s.pick(2, 3), s.pick(1, 2)), (s.pick(1, 2, 3), s.pick(1, 2))
    small = (s.pick(1, 2), s.pick(2, 3))
    padding = s.pick("SAME", "VALID", ((1, 0), (0, 0)))
    valid = [(n - 1) * step + k for n, step, k in zip(small, stride, kernel, strict=True)]
    if padding == "SAME":
        size = (small[0] * stride[0], small[1] * stride[1])
    else:
        size = (valid[0] - (padding != "VALID"), valid[1])
    around = explicit_padding(padding, size, kernel, stride)

    def reference(x: Any, w: Any, b: Any = 0) -> Any:
        tasks = max(len(x), len(w))
        y = np.zeros((tasks, x.shape[1], *size, w.shape[3]), x.dtype)
        for i in np.ndindex(*y.shape[2:]):
            unit = np.zeros((1, 1, *y.shape[2:]), x.dtype)
            unit[0, 0][i] = 1
            y[(slice(None), slice(None), *i)] = (_correlate(unit, w, stride, around) * x).sum((2, 3, 4))
        return y + b

    x = s.normal((s.pick(1, tasks), s.pick(1, 2), *small, inputs))
    w = s.normal((s.pick(1, tasks), *kernel, outputs, inputs))
    b = (s.normal((s.pick(1, max(len(x), len(w))), 1, 1, 1, outputs)),) if s.pick(True, False) else ()
    return Case(lambda *xs: tm.conv_transpose2d(*xs, stride=stride, padding=padding), (x, w, *b), reference)


COMPOSITES = {"conv_transpose2d": _conv_transpose2d}
