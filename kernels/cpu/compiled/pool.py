"""Pooling of images in one pass over the windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from tinymaml.kernels.cpu.compiled.arrays import plain
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute
from tinymaml.kernels.cpu.compiled.windows import Strip, Values, clear, window_pass

Arrays = Sequence[Any]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

LARGEST, TAKE, MEAN, PUT, SPREAD = range(5)  # the last two add to the image

# What is done with the pixels of a window: see `window_pass`.


def _begin_largest(s: Strip, pixels: ir.Value, k: ir.Value, y: ir.Value, at: ir.Value) -> Values:
    return [s.numbers(pixels), s.place(k)]


def _larger(s: Strip, address: ir.Value, k: ir.Value, state: Values) -> Values:
    """The larger, with its place; what is not a number is larger than what is."""
    b, x, (best, place) = s.builder, s.pixel(address), state
    better = b.and_(b.fcmp_unordered(">", x, best), b.fcmp_ordered("ord", best, best))
    return [b.select(better, x, best), b.select(better, s.place(k), place)]


def _end_largest(s: Strip, state: Values, y: ir.Value, at: ir.Value) -> None:
    s.put_numbers(state[0], y)
    s.put_places(state[1], at)


def _begin_take(s: Strip, pixels: ir.Value, k: ir.Value, y: ir.Value, at: ir.Value) -> Values:
    return [s.zero, s.places(at)]


def _taken(s: Strip, address: ir.Value, k: ir.Value, state: Values) -> Values:
    number, place = state
    chosen = s.builder.icmp_signed("==", place, s.place(k))
    return [s.builder.select(chosen, s.pixel(address), number), place]


def _end_take(s: Strip, state: Values, y: ir.Value, at: ir.Value) -> None:
    s.put_numbers(state[0], y)


def _begin_mean(s: Strip, pixels: ir.Value, k: ir.Value, y: ir.Value, at: ir.Value) -> Values:
    return [s.zero]


def _added(s: Strip, address: ir.Value, k: ir.Value, state: Values) -> Values:
    return [s.builder.fadd(state[0], s.pixel(address))]


def _end_mean(s: Strip, state: Values, y: ir.Value, at: ir.Value) -> None:
    s.put_numbers(s.share(state[0]), y)


def _begin_put(s: Strip, pixels: ir.Value, k: ir.Value, y: ir.Value, at: ir.Value) -> Values:
    return [s.numbers(y), s.places(at)]


def _put(s: Strip, address: ir.Value, k: ir.Value, state: Values) -> Values:
    g, place = state
    here = s.builder.select(s.builder.icmp_signed("==", place, s.place(k)), g, s.zero)
    s.put_numbers(s.builder.fadd(s.numbers(address), here), address)
    return state


def _begin_spread(s: Strip, pixels: ir.Value, k: ir.Value, y: ir.Value, at: ir.Value) -> Values:
    return [s.share(s.numbers(y))]


def _spread(s: Strip, address: ir.Value, k: ir.Value, state: Values) -> Values:
    s.put_numbers(s.builder.fadd(s.numbers(address), state[0]), address)
    return state


def _nothing(s: Strip, state: Values, y: ir.Value, at: ir.Value) -> None:
    """All is written already."""


_largest_pass = window_pass(_begin_largest, _larger, _end_largest)
_take_pass = window_pass(_begin_take, _taken, _end_take)
_mean_pass = window_pass(_begin_mean, _added, _end_mean)
_put_pass = window_pass(_begin_put, _put, _nothing)
_spread_pass = window_pass(_begin_spread, _spread, _nothing)


@njit(cache=True, nogil=True)
def _windows(which: int, x: Any, y: Any, at: Any, window: Pair, stride: Pair, top: int, left: int,
             first: int, last: int) -> None:  # fmt: skip
    """One of the passes on all windows of a range of tasks; an array may have one task for all."""
    zero, small, images, channels = x.dtype.type(0), at.dtype.type(0), x.shape[1], x.shape[4]
    row = x.shape[3] * channels * x.itemsize
    for t in range(first, last):
        for n in range(images):
            image, result = t % x.shape[0] * images + n, t % y.shape[0] * images + n
            image_at, y_at = (
                x.ctypes.data + image * x.shape[2] * row,
                y.ctypes.data + result * y[0, 0].size * y.itemsize,
            )
            at_at = at.ctypes.data + (t % at.shape[0] * images + n) * at[0, 0].size * at.itemsize
            if which >= PUT:
                clear(image_at, x.shape[2] * row)
            for p in range(y.shape[2]):
                i0 = p * stride[0] - top
                i = max(i0, 0)
                rows = min(i0 + window[0], x.shape[2]) - i
                for q in range(y.shape[3]):
                    j0 = q * stride[1] - left
                    j = max(j0, 0)
                    columns = min(j0 + window[1], x.shape[3]) - j
                    k = (i - i0) * window[1] + j - j0
                    pixels = image_at + i * row + j * channels * x.itemsize
                    if which == LARGEST:
                        _largest_pass(zero, small, channels, rows, columns, k, window[1], pixels, row, y_at, at_at)
                    elif which == TAKE:
                        _take_pass(zero, small, channels, rows, columns, k, window[1], pixels, row, y_at, at_at)
                    elif which == MEAN:
                        _mean_pass(zero, small, channels, rows, columns, k, window[1], pixels, row, y_at, at_at)
                    elif which == PUT:
                        _put_pass(zero, small, channels, rows, columns, k, window[1], pixels, row, y_at, at_at)
                    else:
                        _spread_pass(zero, small, channels, rows, columns, k, window[1], pixels, row, y_at, at_at)
                    y_at += channels * y.itemsize
                    at_at += channels * at.itemsize


@njit(cache=True, nogil=True)
def pairs_of_rows(which: int, zero: Any, size: int, images_at: int, row: int, rows: int, height: int, width: int,
                  channels: int, y_at: int, at_at: int) -> None:  # fmt: skip
    """LARGEST, TAKE or PUT on windows of 2 x 2 that do not overlap, of rows of pixels row ... row + rows - 1 alone.

    Rows are counted through all images; those given lie at `images_at`, and the first of them begins a window. `zero`
    only gives the type, of `size` bytes; places are single bytes.
    """
    small, outputs, line = np.int8(0), width // 2, width * channels * size
    done = 0
    while done < rows:
        image, i = divmod(row + done, height)
        pixels = images_at + done * line
        if i + 1 == height:  # of an odd height the last row is in no window
            if which == PUT:
                clear(pixels, line)
            done += 1
            continue
        if which == PUT:
            clear(pixels, 2 * line)
        first_window = (image * (height // 2) + i // 2) * outputs * channels
        for q in range(outputs):
            at = pixels + 2 * q * channels * size
            y, place = y_at + (first_window + q * channels) * size, at_at + first_window + q * channels
            if which == LARGEST:
                _largest_pass(zero, small, channels, 2, 2, 0, 2, at, line, y, place)
            elif which == TAKE:
                _take_pass(zero, small, channels, 2, 2, 0, 2, at, line, y, place)
            else:
                _put_pass(zero, small, channels, 2, 2, 0, 2, at, line, y, place)
        done += 2


_windows_distributed = distribute(_windows)


@njit(cache=True, nogil=True)
def _windows_parallel(job: Job, *arguments: Any) -> int:
    return _windows_distributed(job, arguments)


_WINDOWS = Kernel(_windows, _windows_parallel)


def _launch(which: int, x: Any, y: Any, at: Any, window: Pair, stride: Pair, padding: Padding) -> Launch | None:
    if x.size == 0 or y.size == 0:
        return None
    tasks, (x, y, at) = len(x), [plain(a) for a in (x, y, at)]
    arguments = (which, x, y, at, window, stride, padding[0][0], padding[1][0])
    return Launch(tasks, x.size + y.size, _WINDOWS, arguments)


def max_pool(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding) -> Launch | None:
    """The largest of every window, and its place; what is not a number counts as largest."""
    return _launch(LARGEST, ins[0], *outs, window, stride, padding)


def pool_take(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> Launch | None:
    """Of every window the number at its place."""
    return _launch(TAKE, ins[0], outs[0], ins[1], window, stride, padding)


def pool_put(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> Launch | None:
    """Every number added where it was taken from."""
    return _launch(PUT, outs[0], *ins, window, stride, padding)


_NO_PLACES = np.zeros((1, 1, 1, 1, 0), np.int8)


def avg_pool(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> Launch | None:
    """The mean of every window's pixels."""
    return _launch(MEAN, ins[0], outs[0], _NO_PLACES, window, stride, padding)


def avg_spread(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> Launch | None:
    """The adjoint: every number, over the pixels of its window, added to each of them."""
    return _launch(SPREAD, outs[0], ins[0], _NO_PLACES, window, stride, padding)
