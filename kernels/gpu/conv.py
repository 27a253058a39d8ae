"""Convolution of images and its two gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinymaml.kernels.gpu import products
from tinymaml.kernels.gpu.launch import Plan

Arrays = Sequence[Any]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

_KERNELS = [products.instances(name) for name in ("conv2d", "conv2d_dx", "conv2d_dw")]

INSTANCES = {group: tuple([name for instances in _KERNELS for name in instances[group]]) for group in _KERNELS[0]}


def _launch(
    plan: Plan,
    kernel: str,
    out: Any,
    operands: Arrays,
    c: Arrays,
    stride: Pair,
    padding: Padding,
    x: Any,
    w: Any,
    y: Any,
) -> None:
    """The product that gives one of x, w and y, or what has its shape, from the others."""
    images, (height, width), (rows, columns, channels, filters), (p, q) = x[1], x[2:4], w[1:], y[2:4]
    windows, pixels, taps = images * p * q, images * height * width, rows * columns
    sizes = {
        "conv2d": (windows, filters, taps * channels),
        "conv2d_dx": (pixels, channels, taps * filters),
        "conv2d_dw": (taps * channels, filters, windows),
    }[kernel]
    numbers = (images, height, width, channels, filters, p, q, rows, columns, *stride, padding[0][0], padding[1][0])
    divisors = (channels, filters, columns, p * q, q)
    # A pixel meets one tap in so many: pixels that meet the same ones are computed together.
    alike = images * -(-height // stride[0]) * -(-width // stride[1])
    products.multiply(
        plan, "conv", kernel, "", [plan.by_task(a) for a in operands], products.added(plan, c, out.shape), out,
        (out.shape[0], *sizes), (channels, filters), *numbers, *[products.divisor(max(1, n)) for n in divisors],
        kinds=[alike] * (stride[0] * stride[1]) if kernel == "conv2d_dx" else (),
    )  # fmt: skip


def conv2d(plan: Plan, outs: Arrays, ins: Arrays, stride: Pair, padding: Padding) -> None:
    """y[p] = sum over taps of x[stride p + tap] w[tap], + c."""
    (y,), (x, w, *c) = outs, ins
    _launch(plan, "conv2d", y, (x, w), c, stride, padding, x.shape, w.shape, y.shape)


def conv2d_dx(plan: Plan, outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> None:
    """The gradient by x: every tap sends g[p] w[tap] transposed back to pixel stride p + tap, + c."""
    (dx,), (g, w, *c) = outs, ins
    _launch(plan, "conv2d_dx", dx, (g, w), c, stride, padding, dx.shape, w.shape, g.shape)


def conv2d_dw(plan: Plan, outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> None:
    """The gradient by w: for every tap x[stride p + tap] g[p], summed over images and pixels, + c."""
    (dw,), (x, g, *c) = outs, ins
    _launch(plan, "conv2d_dw", dw, (x, g), c, stride, padding, x.shape, dw.shape, g.shape)
