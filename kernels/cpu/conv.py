"""Convolution of images and its two gradients: each tap of the kernel is a product of matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

Arrays = Sequence[Any]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def _pad(x: Any, padding: Padding) -> Any:
    return np.pad(x, ((0, 0), (0, 0), *padding, (0, 0)))


def _taps(padded: Any, size: Pair, outputs: Pair, stride: Pair) -> Iterator[tuple[int, int, Any]]:
    """(row, column, the pixels of `padded` that this tap of the kernel meets, a view) for every tap."""
    (sh, sw), (p, q) = stride, outputs
    for i, j in product(range(size[0]), range(size[1])):
        yield i, j, padded[:, :, i : i + (p - 1) * sh + 1 : sh, j : j + (q - 1) * sw + 1 : sw]


def _rows(x: Any) -> Any:
    """[T, N, P, Q, C] -> [T, N P Q, C]."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:4]), x.shape[4])


def _start(out: Any, c: Arrays) -> None:
    out[...] = c[0] if c else 0


def conv2d(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding) -> None:
    """y[p] = sum over taps of x[stride p + tap] w[tap], + c."""
    (y,), (x, w, *c) = outs, ins
    _start(y, c)
    for i, j, pixels in _taps(_pad(x, padding), w.shape[1:3], y.shape[2:4], stride):
        y += np.matmul(_rows(pixels), w[:, i, j]).reshape(y.shape)


def conv2d_dx(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> None:
    """The gradient by x: every tap sends g[p] w[tap] transposed back to pixel stride p + tap, + c."""
    (dx,), (g, w, *c) = outs, ins
    _start(dx, c)
    padded = _pad(np.zeros_like(dx), padding)
    for i, j, pixels in _taps(padded, w.shape[1:3], g.shape[2:4], stride):
        pixels += np.matmul(_rows(g), w[:, i, j].swapaxes(1, 2)).reshape(pixels.shape)
    (top, _), (left, _) = padding
    dx += padded[:, :, top : top + size[0], left : left + size[1]]


def conv2d_dw(outs: Arrays, ins: Arrays, stride: Pair, padding: Padding, size: Pair) -> None:
    """The gradient by w: for every tap x[stride p + tap] g[p], summed over images and pixels, + c."""
    (dw,), (x, g, *c) = outs, ins
    _start(dw, c)
    for i, j, pixels in _taps(_pad(x, padding), size, g.shape[2:4], stride):
        dw[:, i, j] += np.matmul(_rows(pixels).swapaxes(1, 2), _rows(g))
