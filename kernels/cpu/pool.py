"""Pooling of images: a pass for every place of the window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

Arrays = Sequence[Any]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def _padded(x: Any, padding: Padding, value: float = 0) -> Any:
    return np.pad(x, ((0, 0), (0, 0), *padding, (0, 0)), constant_values=value)


def _places(padded: Any, outputs: Pair, window: Pair, stride: Pair) -> Iterator[Any]:
    """For every place of the window, in reading order, a view of the pixels there."""
    (sh, sw), (p, q) = stride, outputs
    for i, j in product(range(window[0]), range(window[1])):
        yield padded[:, :, i : i + (p - 1) * sh + 1 : sh, j : j + (q - 1) * sw + 1 : sw]


def _inside(padded: Any, size: Pair, padding: Padding) -> Any:
    (top, _), (left, _) = padding
    return padded[:, :, top : top + size[0], left : left + size[1]]


def _counts(size: Pair, outputs: Pair, window: Pair, stride: Pair, padding: Padding, dtype: Any) -> Any:
    """How many pixels of each window are in the image, [1, 1, P, Q, 1]."""
    ones = _padded(np.ones((1, 1, *size, 1), dtype), padding)
    return sum(_places(ones, outputs, window, stride))


def max_pool(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding) -> None:
    """The largest of every window, and its place; what is not a number counts as largest."""
    (y, at), (x,) = outs, ins
    y[...], at[...] = 0, -1
    inside = _padded(np.ones((1, 1, *x.shape[2:4], 1), np.bool_), padding)
    places = zip(
        _places(_padded(x, padding), y.shape[2:4], window, stride),
        _places(inside, y.shape[2:4], window, stride),
        strict=True,
    )
    for k, (pixels, real) in enumerate(places):
        better = real & ((at < 0) | (pixels > y) | (np.isnan(pixels) & ~np.isnan(y)))
        np.copyto(y, pixels, where=better)
        np.copyto(at, at.dtype.type(k), where=better)


def pool_take(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """Of every window the number at its place."""
    (y,), (x, at) = outs, ins
    y[...] = 0
    for k, pixels in enumerate(_places(_padded(x, padding), y.shape[2:4], window, stride)):
        np.copyto(y, pixels, where=at == k)


def pool_put(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """Every number added where it was taken from."""
    (x,), (g, at) = outs, ins
    padded = _padded(np.zeros_like(x), padding)
    for k, pixels in enumerate(_places(padded, g.shape[2:4], window, stride)):
        pixels += np.where(at == k, g, 0)
    x[...] = _inside(padded, size, padding)


def avg_pool(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """The mean of every window's pixels."""
    (y,), (x,) = outs, ins
    y[...] = 0
    for pixels in _places(_padded(x, padding), y.shape[2:4], window, stride):
        y += pixels
    y /= _counts(size, y.shape[2:4], window, stride, padding, y.dtype)


def avg_spread(outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """The adjoint: every number, over the pixels of its window, added to each of them."""
    (x,), (g,) = outs, ins
    share = g / _counts(size, g.shape[2:4], window, stride, padding, x.dtype)
    padded = _padded(np.zeros_like(x), padding)
    for pixels in _places(padded, g.shape[2:4], window, stride):
        pixels += share
    x[...] = _inside(padded, size, padding)
