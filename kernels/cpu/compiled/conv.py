"""Convolution of images and its two gradients, direct: tiles of accumulators in registers, no matrix of patches.

Pixels fall into classes that the same taps of the kernel meet: those in the middle of an image, at each edge, in each
corner. The gradient by x is itself convolution of g, with the kernel turned about; by stride s its pixels fall into
s x s more kinds of classes, and each is a convolution with stride 1. So two inner loops do for all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.cpu.compiled.arrays import plain
from tinymaml.kernels.cpu.compiled.conv_plan import ConvPlan, Padding, Pair, backward_plan, forward_plan
from tinymaml.kernels.cpu.compiled.conv_tile import pixel_tile, product_tile
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute
from tinymaml.kernels.cpu.compiled.tile import transpose
from tinymaml.kernels.cpu.compiled.vectors import BYTES, HEIGHTS, VECTORS, expect_some, tile_height

Arrays = Sequence[Any]

_NEAR = 3 << 13  # bytes of w or g that a pass goes over at a time: they stay in the first cache


@njit(cache=True, nogil=True)
def _next(x: Any, t: int, last: int) -> tuple[int, int]:
    """Where the array of the task after t begins and ends, if it is to be computed here and has a separate one."""
    start, task = x.ctypes.data, x.size // x.shape[0] * x.itemsize
    if t + 1 < last and x.shape[0] > 1:
        return start + (t + 1) * task, start + (t + 2) * task
    return start, start


@njit(cache=True, nogil=True)
def _is_finite(x: Any) -> bool:
    wrong, most = 0, np.finfo(x.dtype).max
    for i in range(len(x)):
        wrong |= not abs(x[i]) <= most
    return wrong == 0


@njit(cache=True, nogil=True)
def _meet_zeros(out: Any, w: Any, images: int, group: int, starts: Any, targets: Any, gaps: Any, missed: Any) -> None:
    """The products of weights that are not finite with the zeros around images are not numbers, nor what they are
    added to: out [numbers of a task], w [taps, inputs, outputs]."""
    outputs, image = w.shape[2], len(out) // images
    for k in range(len(starts) - 1):
        for i in range(gaps[k], gaps[k + 1]):
            for o in range(outputs):
                if _is_finite(w[missed[i], :, o]):
                    continue
                for n in range(images):
                    for m in range(starts[k], starts[k + 1]):
                        at = targets[group * starts[k] + m - starts[k]] // out.itemsize  # of the first image
                        out[n * image + at + o] = np.nan


@njit(cache=True, nogil=True)
def _zeros_meet(out: Any, g: Any, images: int, group: int, starts: Any, targets: Any, gaps: Any, missed: Any) -> None:
    """The same where the sum runs over pixels: out [taps, inputs, outputs], g [numbers of a task]."""
    outputs, image = out.shape[2], len(g) // images
    for k in range(len(starts) - 1):
        if gaps[k] == gaps[k + 1]:
            continue
        for n in range(images):
            for m in range(starts[k], starts[k + 1]):
                at = n * image + targets[group * starts[k] + m - starts[k]] // g.itemsize
                if _is_finite(g[at : at + outputs]):
                    continue
                for o in range(outputs):
                    if not np.isfinite(g[at + o]):
                        for i in range(gaps[k], gaps[k + 1]):
                            out[missed[i], :, o] = np.nan


@njit(cache=True, nogil=True)
def _pixels(
    source: Any, w: Any, turned: bool, c: Any, c_scale: int, out: Any, group: int, starts: Any, sources: Any,
    targets: Any, lines: Any, columns: Any, first_taps: Any, strides: Any, taps: Any, gaps: Any, missed: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Tasks first ... last - 1 of out = c + source * w, for every class of pixels."""
    size = out.itemsize
    lanes = BYTES // size
    images, inputs, outputs = source.shape[1], source.shape[4], out.shape[4]
    near = max(1, _NEAR // (outputs * size))
    zero = out.dtype.type(0)
    packed = np.empty((len(taps) if turned else 0, inputs, outputs), out.dtype)
    flat = w.reshape(w.shape[0], w.shape[1] * w.shape[2], w.shape[3], w.shape[4])
    tap = inputs * outputs * size
    line = source.shape[3] * inputs * size
    source_image, out_image = source.shape[2] * line, out.shape[2] * out.shape[3] * outputs * size
    for t in range(first, last):
        tw = t if w.shape[0] > 1 else 0
        ts = t if source.shape[0] > 1 else 0
        if not turned:
            w_at = w.ctypes.data + tw * len(taps) * tap
        else:
            if t == first or w.shape[0] > 1:
                for i in range(len(taps)):
                    transpose(flat[tw, taps[i]], packed[i])
            w_at = packed.ctypes.data
        c_at = c.ctypes.data + (t * (c.size // c.shape[0]) * size if c.shape[0] > 1 else 0)
        # What the next task needs, asked for while this one is computed.
        x_next, x_end = _next(source, t, last)
        w_next, w_end = _next(w, t, last)
        out_next, out_end = _next(out, t, last)
        for n in range(0, images, group):
            count = min(group, images - n)
            x_at = source.ctypes.data + (ts * images + n) * source_image
            out_at = out.ctypes.data + (t * images + n) * out_image
            for k in range(len(lines)):
                pixels = count * (starts[k + 1] - starts[k])
                from_at = sources.ctypes.data + 8 * group * starts[k]
                to_at = targets.ctypes.data + 8 * group * starts[k]
                run = columns[k] * inputs
                # The rows of w in parts that stay near, while all pixels pass by: whole lines, or parts of one.
                parts = max(1, (run + near - 1) // near)
                part = max(1, (run + parts - 1) // parts)
                some = max(1, near // max(1, run))
                c_from, scale = c_at + c_scale * n * out_image, c_scale
                for i in range(0, max(1, lines[k]), some):
                    for r in range(0, max(1, run), part):
                        for j in range(0, outputs, lanes * VECTORS):
                            wide = min(outputs - j, lanes * VECTORS)
                            vectors = (wide + lanes - 1) // lanes
                            tall = tile_height(pixels, HEIGHTS[vectors - 1])
                            for m in range(0, pixels, tall):
                                pixel_tile(
                                    zero,
                                    min(tall, pixels - m),
                                    vectors,
                                    wide - (vectors - 1) * lanes,
                                    x_at + i * line + r * size,
                                    from_at + 8 * m,
                                    min(some, lines[k] - i),
                                    line,
                                    min(part, run - r),
                                    w_at + (first_taps[k] + i * strides[k]) * tap + (r * outputs + j) * size,
                                    outputs * size,
                                    strides[k] * tap,
                                    c_from + j * size,
                                    scale,
                                    out_at + j * size,
                                    to_at + 8 * m,
                                )
                                x_next = expect_some(x_next, x_end)
                                w_next = expect_some(w_next, w_end)
                                out_next = expect_some(out_next, out_end)
                        c_from, scale = out_at, 1
        if len(missed) and not _is_finite(w[tw].reshape(-1)):
            _meet_zeros(out[t].reshape(-1), flat[tw], images, group, starts, targets, gaps, missed)


_pixels_distributed = distribute(_pixels)


@njit(cache=True, nogil=True)
def _pixels_parallel(job: Job, *arguments: Any) -> int:
    return _pixels_distributed(job, arguments)


_PIXELS = Kernel(_pixels, _pixels_parallel)


@njit(cache=True, nogil=True)
def _products(
    source: Any, g: Any, c: Any, out: Any, group: int, starts: Any, sources: Any, targets: Any,
    lines: Any, columns: Any, first_taps: Any, strides: Any, taps: Any, gaps: Any, missed: Any, first: int, last: int,
) -> None:  # fmt: skip
    """Tasks first ... last - 1 of out = c + the products of source and g, summed over images and pixels."""
    size = out.itemsize
    lanes = BYTES // size
    images, inputs, outputs = source.shape[1], source.shape[4], out.shape[4]
    near = max(1, _NEAR // (outputs * size))
    zero = out.dtype.type(0)
    tap = inputs * outputs * size
    task = out.shape[1] * out.shape[2] * tap
    line = source.shape[3] * inputs * size
    source_image, g_image = source.shape[2] * line, g.shape[2] * g.shape[3] * outputs * size
    every = lines[0] == out.shape[1] and columns[0] == out.shape[2]  # the first class writes all of the result
    for t in range(first, last):
        ts = t if source.shape[0] > 1 else 0
        tg = t if g.shape[0] > 1 else 0
        out_at = out.ctypes.data + t * task
        c_at = c.ctypes.data + (t * task if c.shape[0] > 1 else 0)
        c_row = outputs * size if c.size > outputs else 0
        if not every:
            out[t] = c[t if c.shape[0] > 1 else 0]
            c_at, c_row = out_at, outputs * size
        x_next, x_end = _next(source, t, last)
        g_next, g_end = _next(g, t, last)
        out_next, out_end = _next(out, t, last)
        for n in range(0, images, group):
            count = min(group, images - n)
            x_at = source.ctypes.data + (ts * images + n) * source_image
            g_at = g.ctypes.data + (tg * images + n) * g_image
            for k in range(len(lines)):
                pixels = count * (starts[k + 1] - starts[k])
                from_at = sources.ctypes.data + 8 * group * starts[k]
                to_at = targets.ctypes.data + 8 * group * starts[k]
                run = columns[k] * inputs
                part = tile_height(pixels, near)  # pixels whose g stays near, while all rows pass by
                for m in range(0, pixels, part):
                    for i in range(lines[k]):
                        row = (first_taps[k] + i * strides[k]) * inputs
                        for j in range(0, outputs, lanes * VECTORS):
                            wide = min(outputs - j, lanes * VECTORS)
                            vectors = (wide + lanes - 1) // lanes
                            tall = tile_height(run, HEIGHTS[vectors - 1])
                            for r in range(0, run, tall):
                                product_tile(
                                    zero,
                                    min(tall, run - r),
                                    vectors,
                                    wide - (vectors - 1) * lanes,
                                    min(part, pixels - m),
                                    x_at + i * line + r * size,
                                    from_at + 8 * m,
                                    g_at + j * size,
                                    to_at + 8 * m,
                                    c_at + (row + r) * c_row + j * size,
                                    c_row,
                                    out_at + ((row + r) * outputs + j) * size,
                                    outputs * size,
                                )
                                x_next = expect_some(x_next, x_end)
                                g_next = expect_some(g_next, g_end)
                                out_next = expect_some(out_next, out_end)
                    c_at, c_row = out_at, outputs * size
        if len(missed):
            flat = out[t].reshape(out.shape[1] * out.shape[2], inputs, outputs)
            _zeros_meet(flat, g[tg].reshape(-1), images, group, starts, targets, gaps, missed)


_products_distributed = distribute(_products)


@njit(cache=True, nogil=True)
def _products_parallel(job: Job, *arguments: Any) -> int:
    return _products_distributed(job, arguments)


_PRODUCTS = Kernel(_products, _products_parallel)


def _work(w: Any, y: Any) -> int:
    """Multiplications of a convolution."""
    return y.size * w.size // (w.shape[0] * w.shape[4])


def _pixels_launch(out: Any, source: Any, w: Any, c: Arrays, plan: ConvPlan, turned: bool, work: int) -> Launch:
    source, w = plain(source), plain(w)
    addend = plain(c[0]) if c else np.zeros((1, 1, 1, 1, out.shape[4]), out.dtype)
    c_scale = int(addend.size // len(addend) > out.shape[4] or addend.shape[1:] == out.shape[1:])
    return Launch(len(out), work, _PIXELS, (source, w, turned, addend, c_scale, out, *plan))


def conv2d(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding) -> Launch | None:
    """y[p] = sum over taps of x[stride p + tap] w[tap], + c."""
    (y,), (x, w, *c) = outs, ins
    if y.size == 0 or w.size == 0:
        return None
    pixel, out_pixel = x.shape[4] * y.itemsize, y.shape[4] * y.itemsize
    plan = forward_plan(x.shape[1], x.shape[2:4], w.shape[1:3], y.shape[2:4], stride, padding, pixel, out_pixel)
    return _pixels_launch(y, x, w, c, plan, False, _work(w, y))


def conv2d_dx(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> Launch | None:
    """The gradient by x: every tap sends g[p] w[tap] transposed back to pixel stride p + tap, + c."""
    (dx,), (g, w, *c) = outs, ins
    if dx.size == 0 or w.size == 0 or g.size == 0:
        return None
    pixel, out_pixel = g.shape[4] * dx.itemsize, dx.shape[4] * dx.itemsize
    plan = backward_plan(g.shape[1], size, w.shape[1:3], g.shape[2:4], stride, padding, pixel, out_pixel)
    return _pixels_launch(dx, g, w, c, plan, True, _work(w, g))


def conv2d_dw(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> Launch | None:
    """The gradient by w: for every tap x[stride p + tap] g[p], summed over images and pixels, + c."""
    (dw,), (x, g, *c) = outs, ins
    if dw.size == 0 or x.size == 0 or g.size == 0:
        return None
    pixel, out_pixel = x.shape[4] * dw.itemsize, g.shape[4] * dw.itemsize
    plan = forward_plan(x.shape[1], x.shape[2:4], size, g.shape[2:4], stride, padding, pixel, out_pixel)
    x, g = plain(x), plain(g)
    addend = plain(c[0]) if c else np.zeros((1, 1, 1, 1, dw.shape[4]), dw.dtype)
    return Launch(len(dw), _work(dw, g), _PRODUCTS, (x, g, addend, dw, *plan))
