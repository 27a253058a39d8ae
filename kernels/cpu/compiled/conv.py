"""Convolution of images and its two gradients, direct: tiles of accumulators in registers, no matrix of patches.

The gradient by x is itself convolution of g, with the kernel turned about: by stride s the pixels of x fall into s x s
classes that different taps reach, and each class is a convolution with stride 1. So two inner loops do for all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tinymaml.kernels.cpu import conv as reference
from tinymaml.kernels.cpu.compiled.conv_tile import pixel_tile, product_tile
from tinymaml.kernels.cpu.compiled.tile import transpose
from tinymaml.kernels.cpu.compiled.vectors import BYTES, HEIGHTS, VECTORS, tile_height
from tinymaml.kernels.cpu.threads import over_tasks

Arrays = Sequence[Any]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

_SCRATCH = 1 << 18  # bytes of padded images at a time: they stay in the second cache
_NEAR = 3 << 13  # bytes of w or g that a pass goes over at a time: they stay in the first cache


class _Plan(NamedTuple):
    """Where the pixels of a pass lie. Lists of classes of pixels one behind the other; forward there is one class."""

    top: int  # of the source in its padded copy
    left: int
    height: int  # of the padded copy
    width: int
    group: int  # images at a time
    starts: Any  # int64[classes + 1]: of each class's pixels of one image, in the next two
    sources: Any  # int64: offsets of pixels in the padded source, bytes, image by image
    targets: Any  # int64: offsets of pixels in the result, bytes
    taps: Any  # int64: taps of the kernel in the order of their use, class by class
    lines: Any  # int64[classes]: rows of the kernel
    columns: Any  # int64[classes]: columns of the kernel


def _offsets(rows: Any, columns: Any, height: int, width: int, group: int, pixel: int) -> Any:
    """Bytes from the first image to each pixel of each of `group` images [group * rows * columns]."""
    places = (np.asarray(rows)[:, None] * width + np.asarray(columns)[None, :]).ravel()
    return ((np.arange(group)[:, None] * (height * width) + places).ravel() * pixel).astype(np.int64)


def _group(images: int, pixels: int, pixel: int) -> int:
    return max(1, min(images, _SCRATCH // max(1, pixels * pixel)))


@lru_cache(maxsize=256)
def _forward_plan(
    images: int, size: Pair, kernel: Pair, outputs: Pair, stride: Pair, padding: Padding, pixel: int, out_pixel: int
) -> _Plan:
    (top, bottom), (left, right) = padding
    height, width = size[0] + top + bottom, size[1] + left + right
    group = _group(images, height * width, pixel)
    rows, columns = np.arange(outputs[0]), np.arange(outputs[1])
    return _Plan(
        top,
        left,
        height,
        width,
        group,
        np.array([0, len(rows) * len(columns)]),
        _offsets(rows * stride[0], columns * stride[1], height, width, group, pixel),
        _offsets(rows, columns, outputs[0], outputs[1], group, out_pixel),
        np.arange(kernel[0] * kernel[1]),
        np.array([kernel[0]]),
        np.array([kernel[1]]),
    )


def _axis_classes(n: int, k: int, s: int, before: int, g: int) -> tuple[int, int, list[tuple[list[int], Any, Any]]]:
    """One axis of the gradient by x: (zeros before g, its padded length, classes); a class is (taps, where in the
    padded g its first tap meets, pixels of x)."""
    lead = (k + s - 1) // s - 1
    classes, end = [], lead + g
    for a in range(s):
        taps = list(range(a, k, s))[::-1]
        pixels = np.arange(before + (a - before) % s, before + n, s)
        first = (pixels - a) // s - max(len(taps) - 1, 0) + lead
        if len(pixels):
            end = max(end, int(first[-1]) + len(taps))
            classes.append((taps, first, pixels - before))
    return lead, end, classes


@lru_cache(maxsize=256)
def _backward_plan(
    images: int, size: Pair, kernel: Pair, outputs: Pair, stride: Pair, padding: Padding, pixel: int, out_pixel: int
) -> _Plan:
    """Of g (`outputs`, `pixel` bytes) to x (`size`, `out_pixel` bytes)."""
    top, height, over_rows = _axis_classes(size[0], kernel[0], stride[0], padding[0][0], outputs[0])
    left, width, over_columns = _axis_classes(size[1], kernel[1], stride[1], padding[1][0], outputs[1])
    group = _group(images, height * width, pixel)
    starts, sources, targets, taps, lines, columns = [0], [], [], [], [], []
    for rows, from_rows, to_rows in over_rows:
        for cols, from_columns, to_columns in over_columns:
            starts.append(starts[-1] + len(to_rows) * len(to_columns))
            sources.append(_offsets(from_rows, from_columns, height, width, group, pixel))
            targets.append(_offsets(to_rows, to_columns, size[0], size[1], group, out_pixel))
            taps += [i * kernel[1] + j for i in rows for j in cols]
            lines.append(len(rows) if cols else 0)
            columns.append(len(cols))
    return _Plan(
        top,
        left,
        height,
        width,
        group,
        np.array(starts),
        np.concatenate(sources),
        np.concatenate(targets),
        np.array(taps, np.int64),
        np.array(lines),
        np.array(columns),
    )


@njit(cache=True, nogil=True)
def _pad(source: Any, t: int, first: int, count: int, top: int, left: int, scratch: Any) -> None:
    """Images first ... first + count - 1 of task t, into the middle of the scratch, whose border stays zero."""
    h, line = source.shape[2], source.shape[3] * source.shape[4]
    start = left * source.shape[4]
    flat = source.reshape(source.shape[0], source.shape[1], h, line)
    to = scratch.reshape(scratch.shape[0], scratch.shape[1], -1)
    for n in range(count):
        for i in range(h):
            for j in range(line):
                to[n, top + i, start + j] = flat[t, first + n, i, j]


@njit(cache=True, nogil=True)
def _pixels(
    source: Any, w: Any, turned: bool, c: Any, c_scale: int, out: Any,
    top: int, left: int, height: int, width: int, group: int,
    starts: Any, sources: Any, targets: Any, taps: Any, lines: Any, columns: Any, first: int, last: int,
) -> None:  # fmt: skip
    """Tasks first ... last - 1 of out = c + source * w, for every class of pixels."""
    size = out.itemsize
    lanes = BYTES // size
    images, inputs, outputs = source.shape[1], source.shape[4], out.shape[4]
    near = max(1, _NEAR // (outputs * size))
    zero = out.dtype.type(0)
    padded = height != source.shape[2] or width != source.shape[3]
    scratch = np.zeros((group if padded else 0, height, width, inputs), out.dtype)
    packed = np.empty((len(taps) if turned else 0, inputs, outputs), out.dtype)
    flat = w.reshape(w.shape[0], w.shape[1] * w.shape[2], w.shape[3], w.shape[4])
    out_image = out.shape[2] * out.shape[3] * outputs * size
    for t in range(first, last):
        tw = t if w.shape[0] > 1 else 0
        ts = t if source.shape[0] > 1 else 0
        if not turned:
            w_at = w.ctypes.data + tw * len(taps) * inputs * outputs * size
        else:
            if t == first or w.shape[0] > 1:
                for i in range(len(taps)):
                    transpose(flat[tw, taps[i]], packed[i])
            w_at = packed.ctypes.data
        c_at = c.ctypes.data + (t * (c.size // c.shape[0]) * size if c.shape[0] > 1 else 0)
        for n in range(0, images, group):
            count = min(group, images - n)
            if padded:
                _pad(source, ts, n, count, top, left, scratch)
                x_at = scratch.ctypes.data
            else:
                x_at = source.ctypes.data + (ts * images + n) * height * width * inputs * size
            out_at = out.ctypes.data + (t * images + n) * out_image
            done = 0
            for k in range(len(lines)):
                pixels = count * (starts[k + 1] - starts[k])
                from_at = sources.ctypes.data + 8 * group * starts[k]
                to_at = targets.ctypes.data + 8 * group * starts[k]
                run = columns[k] * inputs
                # The rows of w in parts that stay near, while all pixels pass by.
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
                                    x_at + i * width * inputs * size + r * size,
                                    from_at + 8 * m,
                                    min(some, lines[k] - i),
                                    width * inputs * size,
                                    min(part, run - r),
                                    w_at + (((done + i * columns[k]) * inputs + r) * outputs + j) * size,
                                    outputs * size,
                                    c_from + j * size,
                                    scale,
                                    out_at + j * size,
                                    to_at + 8 * m,
                                )
                        c_from, scale = out_at, 1
                done += lines[k] * columns[k]


@njit(cache=True, nogil=True)
def _products(
    source: Any, g: Any, c: Any, out: Any,
    top: int, left: int, height: int, width: int, group: int, sources: Any, first: int, last: int,
) -> None:  # fmt: skip
    """Tasks first ... last - 1 of out = c + the products of source and g, summed over images and pixels."""
    size = out.itemsize
    lanes = BYTES // size
    images, inputs, outputs = source.shape[1], source.shape[4], out.shape[4]
    zero = out.dtype.type(0)
    padded = height != source.shape[2] or width != source.shape[3]
    scratch = np.zeros((group if padded else 0, height, width, inputs), out.dtype)
    pixels = g.shape[2] * g.shape[3]
    run = out.shape[2] * inputs
    line = width * inputs * size
    near = max(1, _NEAR // (outputs * size))
    task = out.shape[1] * run * outputs
    for t in range(first, last):
        ts = t if source.shape[0] > 1 else 0
        tg = t if g.shape[0] > 1 else 0
        start = c.ctypes.data + (t * task * size if c.shape[0] > 1 else 0)
        out_at = out.ctypes.data + t * task * size
        c_at = start
        c_row = outputs * size if c.size > outputs else 0
        for n in range(0, images, group):
            count = min(group, images - n)
            if padded:
                _pad(source, ts, n, count, top, left, scratch)
                x_at = scratch.ctypes.data
            else:
                x_at = source.ctypes.data + (ts * images + n) * height * width * inputs * size
            g_at = g.ctypes.data + (tg * images + n) * pixels * outputs * size
            for m in range(0, count * pixels, near):
                here = min(near, count * pixels - m)
                for i in range(out.shape[1]):
                    for j in range(0, outputs, lanes * VECTORS):
                        wide = min(outputs - j, lanes * VECTORS)
                        vectors = (wide + lanes - 1) // lanes
                        tall = tile_height(run, HEIGHTS[vectors - 1])
                        for r in range(0, run, tall):
                            row = i * run + r
                            product_tile(
                                zero,
                                min(tall, run - r),
                                vectors,
                                wide - (vectors - 1) * lanes,
                                here,
                                x_at + i * line + r * size,
                                sources.ctypes.data + 8 * m,
                                g_at + (m * outputs + j) * size,
                                outputs * size,
                                c_at + row * c_row + j * size,
                                c_row,
                                out_at + (row * outputs + j) * size,
                                outputs * size,
                            )
                c_at, c_row = out_at, outputs * size


def _plain(x: Any) -> Any:
    """The array in C order, without the copies of an axis that was broadcast over tasks."""
    if x.flags.c_contiguous:
        return x
    return np.ascontiguousarray(x[:1] if x.strides[0] == 0 else x)


def _work(w: Any, y: Any) -> int:
    """Multiplications of a convolution."""
    return y.size * w.size // (w.shape[0] * w.shape[4])


def _run_pixels(out: Any, source: Any, w: Any, c: Arrays, plan: _Plan, turned: bool, work: int) -> None:
    source, w = _plain(source), _plain(w)
    addend = _plain(c[0]) if c else np.zeros((1, 1, 1, 1, out.shape[4]), out.dtype)
    c_scale = int(addend.size // len(addend) > out.shape[4] or addend.shape[1:] == out.shape[1:])
    over_tasks(
        out.shape[0], work, lambda first, last: _pixels(source, w, turned, addend, c_scale, out, *plan, first, last)
    )


def conv2d(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding) -> None:
    """y[p] = sum over taps of x[stride p + tap] w[tap], + c."""
    (y,), (x, w, *c) = outs, ins
    if y.size == 0 or w.size == 0:
        reference.conv2d(outs, ins, stride, padding)
        return
    pixel, out_pixel = x.shape[4] * y.itemsize, y.shape[4] * y.itemsize
    plan = _forward_plan(x.shape[1], x.shape[2:4], w.shape[1:3], y.shape[2:4], stride, padding, pixel, out_pixel)
    _run_pixels(y, x, w, c, plan, False, _work(w, y))


def conv2d_dx(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> None:
    """The gradient by x: every tap sends g[p] w[tap] transposed back to pixel stride p + tap, + c."""
    (dx,), (g, w, *c) = outs, ins
    if dx.size == 0 or w.size == 0 or g.size == 0:
        reference.conv2d_dx(outs, ins, stride, padding, size)
        return
    pixel, out_pixel = g.shape[4] * dx.itemsize, dx.shape[4] * dx.itemsize
    plan = _backward_plan(g.shape[1], size, w.shape[1:3], g.shape[2:4], stride, padding, pixel, out_pixel)
    _run_pixels(dx, g, w, c, plan, True, _work(w, g))


def conv2d_dw(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> None:
    """The gradient by w: for every tap x[stride p + tap] g[p], summed over images and pixels, + c."""
    (dw,), (x, g, *c) = outs, ins
    if dw.size == 0 or x.size == 0 or g.size == 0:
        reference.conv2d_dw(outs, ins, stride, padding, size)
        return
    pixel, out_pixel = x.shape[4] * dw.itemsize, g.shape[4] * dw.itemsize
    plan = _forward_plan(x.shape[1], x.shape[2:4], size, g.shape[2:4], stride, padding, pixel, out_pixel)
    x, g = _plain(x), _plain(g)
    addend = _plain(c[0]) if c else np.zeros((1, 1, 1, 1, dw.shape[4]), dw.dtype)
    over_tasks(
        dw.shape[0],
        _work(dw, g),
        lambda first, last: _products(x, g, addend, dw, *plan[:5], plan.sources, first, last),
    )
