"""Cases of the poolings, as primitive_cases has them: odd sizes, padding, stride > window, overlapping windows."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinymaml as tm
from tests.cases.primitive_cases import Case, Source, case
from tinymaml.autodiff.primitive import REGISTRY
from tinymaml.ops.conv import explicit_padding, output_size


class _Draw:
    """Sizes that fit together."""

    def __init__(self, s: Source) -> None:
        self.window = (s.pick(1, 2, 3), s.pick(1, 2, 3))
        self.stride = (s.pick(1, 2, 4), s.pick(1, 2, 3))
        self.size = (self.window[0] + s.pick(0, 1, 3), self.window[1] + s.pick(0, 2))
        explicit = ((self.window[0] - 1, 0), (0, self.window[1] - 1))
        self.padding = explicit_padding(s.pick("VALID", "SAME", explicit), self.size, self.window, self.stride)
        lead, channels = (s.pick(1, 2, 0), s.pick(1, 3, 0)), s.pick(1, 2, 17, 0)
        self.x = (*lead, *self.size, channels)
        self.y = (*lead, *output_size(self.size, self.window, self.stride, self.padding), channels)
        self.static = {"window": self.window, "stride": self.stride, "padding": self.padding}

    def windows(self) -> Any:
        """(row, column, rows and columns of the image) of every window."""
        for p in range(self.y[2]):
            for q in range(self.y[3]):
                i, j = p * self.stride[0] - self.padding[0][0], q * self.stride[1] - self.padding[1][0]
                yield p, q, range(i, i + self.window[0]), range(j, j + self.window[1])

    def pixels(self, rows: range, columns: range) -> list[tuple[int, int, int]]:
        """(place in the window, row, column) of the pixels that are in the image."""
        found = [(i, j) for i in rows for j in columns]
        return [(k, i, j) for k, (i, j) in enumerate(found) if 0 <= i < self.size[0] and 0 <= j < self.size[1]]

    def places(self, s: Source) -> Any:
        """For every number of the result a place in its window that is in the image."""
        at = np.zeros(self.y, np.int8)
        for p, q, rows, columns in self.windows():
            inside = [k for k, _, _ in self.pixels(rows, columns)]
            at[:, :, p, q] = s.rng.choice(inside, (*self.y[:2], self.y[4]))
        return at


@case
def max_pool(s: Source) -> Case:
    d = _Draw(s)

    def reference(x: Any) -> Any:
        y, at = np.zeros(d.y, x.dtype), np.zeros(d.y, np.int8)
        for p, q, rows, columns in d.windows():
            found = d.pixels(rows, columns)
            values = np.stack([x[:, :, i, j] for _, i, j in found])
            y[:, :, p, q] = values.max(0)
            at[:, :, p, q] = np.array([k for k, _, _ in found])[values.argmax(0)]
        return y, at

    return Case(lambda x: REGISTRY["max_pool"](x, **d.static), (s.distinct(d.x),), reference)


@case
def pool_take(s: Source) -> Case:
    d = _Draw(s)
    at = d.places(s)

    def reference(x: Any, at: Any) -> Any:
        y = np.zeros(d.y, x.dtype)
        for p, q, rows, columns in d.windows():
            for k, i, j in d.pixels(rows, columns):
                y[:, :, p, q] += np.where(at[:, :, p, q] == k, x[:, :, i, j], 0)
        return y

    return Case(lambda x, at: REGISTRY["pool_take"](x, at, **d.static, size=d.size), (s.normal(d.x), at), reference)


@case
def pool_put(s: Source) -> Case:
    d = _Draw(s)
    at = d.places(s)

    def reference(g: Any, at: Any) -> Any:
        x = np.zeros(d.x, g.dtype)
        for p, q, rows, columns in d.windows():
            for k, i, j in d.pixels(rows, columns):
                x[:, :, i, j] += np.where(at[:, :, p, q] == k, g[:, :, p, q], 0)
        return x

    return Case(lambda g, at: REGISTRY["pool_put"](g, at, **d.static, size=d.size), (s.normal(d.y), at), reference)


@case
def avg_pool(s: Source) -> Case:
    d = _Draw(s)

    def reference(x: Any) -> Any:
        y = np.zeros(d.y, x.dtype)
        for p, q, rows, columns in d.windows():
            y[:, :, p, q] = np.mean([x[:, :, i, j] for _, i, j in d.pixels(rows, columns)], 0)
        return y

    return Case(lambda x: REGISTRY["avg_pool"](x, **d.static, size=d.size), (s.normal(d.x),), reference)


@case
def avg_spread(s: Source) -> Case:
    d = _Draw(s)

    def reference(g: Any) -> Any:
        x = np.zeros(d.x, g.dtype)
        for p, q, rows, columns in d.windows():
            found = d.pixels(rows, columns)
            for _, i, j in found:
                x[:, :, i, j] += g[:, :, p, q] / g.dtype.type(len(found))
        return x

    return Case(lambda g: REGISTRY["avg_spread"](g, **d.static, size=d.size), (s.normal(d.y),), reference)


def _max_pool2d(s: Source) -> Case:
    d = _Draw(s)

    def reference(x: Any) -> Any:
        y = np.zeros(d.y, x.dtype)
        for p, q, rows, columns in d.windows():
            y[:, :, p, q] = np.max([x[:, :, i, j] for _, i, j in d.pixels(rows, columns)], 0)
        return y

    return Case(lambda x: tm.max_pool2d(x, d.window, d.stride, d.padding), (s.distinct(d.x),), reference)


def _avg_pool2d(s: Source) -> Case:
    d = _Draw(s)

    def reference(x: Any) -> Any:
        y = np.zeros(d.y, x.dtype)
        for p, q, rows, columns in d.windows():
            y[:, :, p, q] = np.mean([x[:, :, i, j] for _, i, j in d.pixels(rows, columns)], 0)
        return y

    return Case(lambda x: tm.avg_pool2d(x, d.window, d.stride, d.padding), (s.normal(d.x),), reference)


def _spatial_mean(s: Source) -> Case:
    shape = (s.pick(1, 2), s.pick(1, 3), s.pick(1, 2, 5), s.pick(1, 3), s.pick(1, 4))
    return Case(tm.spatial_mean, (s.normal(shape),), lambda x: x.mean((2, 3)))


# Of the public functions.
COMPOSITES = {"max_pool2d": _max_pool2d, "avg_pool2d": _avg_pool2d, "spatial_mean": _spatial_mean}
