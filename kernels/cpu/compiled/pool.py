"""Pooling of images in one pass: windows outside, channels inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from tinymaml.kernels.cpu import pool as reference
from tinymaml.kernels.cpu.threads import over_tasks

Arrays = Sequence[Any]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


@njit(cache=True, nogil=True)
def _max_pool(x: Any, y: Any, at: Any, window: Pair, stride: Pair, top: int, left: int, first: int, last: int) -> None:
    height, width, channels = x.shape[2], x.shape[3], x.shape[4]
    for t in range(first, last):
        source = x[t if x.shape[0] > 1 else 0]
        for n in range(y.shape[1]):
            for p in range(y.shape[2]):
                i0 = p * stride[0] - top
                for q in range(y.shape[3]):
                    j0 = q * stride[1] - left
                    best, place = y[t, n, p, q], at[t, n, p, q]
                    fresh = True
                    for i in range(max(i0, 0), min(i0 + window[0], height)):
                        for j in range(max(j0, 0), min(j0 + window[1], width)):
                            pixel = source[n, i, j]
                            k = (i - i0) * window[1] + j - j0
                            if fresh:
                                for c in range(channels):
                                    best[c], place[c] = pixel[c], k
                            else:
                                for c in range(channels):
                                    # Larger, or not a number where the best so far is one.
                                    better = not (pixel[c] <= best[c]) and best[c] == best[c]
                                    best[c] = pixel[c] if better else best[c]
                                    place[c] = k if better else place[c]
                            fresh = False


@njit(cache=True, nogil=True)
def _take(x: Any, at: Any, y: Any, window: Pair, stride: Pair, top: int, left: int, first: int, last: int) -> None:
    height, width, channels = x.shape[2], x.shape[3], x.shape[4]
    for t in range(first, last):
        source, places = x[t if x.shape[0] > 1 else 0], at[t if at.shape[0] > 1 else 0]
        for n in range(y.shape[1]):
            for p in range(y.shape[2]):
                i0 = p * stride[0] - top
                for q in range(y.shape[3]):
                    j0 = q * stride[1] - left
                    place, out = places[n, p, q], y[t, n, p, q]
                    for i in range(max(i0, 0), min(i0 + window[0], height)):
                        for j in range(max(j0, 0), min(j0 + window[1], width)):
                            pixel, k = source[n, i, j], (i - i0) * window[1] + j - j0
                            for c in range(channels):  # every place is met once, so every number is written
                                out[c] = pixel[c] if place[c] == k else out[c]


@njit(cache=True, nogil=True)
def _put(g: Any, at: Any, x: Any, window: Pair, stride: Pair, top: int, left: int, first: int, last: int) -> None:
    height, width, channels = x.shape[2], x.shape[3], x.shape[4]
    zero = x.dtype.type(0)
    for t in range(first, last):
        source, places = g[t if g.shape[0] > 1 else 0], at[t if at.shape[0] > 1 else 0]
        x[t] = zero
        for n in range(g.shape[1]):
            for p in range(g.shape[2]):
                i0 = p * stride[0] - top
                for q in range(g.shape[3]):
                    j0 = q * stride[1] - left
                    place, value = places[n, p, q], source[n, p, q]
                    for i in range(max(i0, 0), min(i0 + window[0], height)):
                        for j in range(max(j0, 0), min(j0 + window[1], width)):
                            pixel, k = x[t, n, i, j], (i - i0) * window[1] + j - j0
                            for c in range(channels):
                                pixel[c] += value[c] if place[c] == k else zero


def _plain(x: Any) -> Any:
    """The array in C order, without the copies of an axis that was broadcast over tasks."""
    if x.flags.c_contiguous:
        return x
    return np.ascontiguousarray(x[:1] if x.strides[0] == 0 else x)


def max_pool(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding) -> None:
    """The largest of every window, and its place; what is not a number counts as largest."""
    (y, at), (top, left) = outs, (padding[0][0], padding[1][0])
    if y.size == 0:
        return
    x = _plain(ins[0])
    over_tasks(len(y), x.size, lambda first, last: _max_pool(x, y, at, window, stride, top, left, first, last))


def pool_take(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """Of every window the number at its place."""
    (y,), (top, left) = outs, (padding[0][0], padding[1][0])
    if y.size == 0:
        return
    x, at = (_plain(a) for a in ins)
    over_tasks(len(y), 8 * y.size, lambda first, last: _take(x, at, y, window, stride, top, left, first, last))


def pool_put(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """Every number added where it was taken from."""
    (x,), (top, left) = outs, (padding[0][0], padding[1][0])
    if ins[0].size == 0 or x.size == 0:
        reference.pool_put(outs, ins, window, stride, padding, size)
        return
    g, at = (_plain(a) for a in ins)
    over_tasks(len(x), 8 * g.size, lambda first, last: _put(g, at, x, window, stride, top, left, first, last))
