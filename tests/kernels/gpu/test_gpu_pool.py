"""Poolings on the GPU equal the reference."""

from math import prod

import numpy as np
import pytest

from tests.cases import gpu_cases
from tinymaml.ops.conv import output_size

pytestmark = pytest.mark.usefixtures("gpu")

NONE = ((0, 0), (0, 0))
# Shape of the images, window, stride, padding: odd sizes, overlapping windows, gaps between them, windows that reach
# beyond the image; threads along channels one by one and four by four; places of one byte and of four.
CASES = [
    ((2, 3, 6, 4, 8), (2, 2), (2, 2), NONE),
    ((1, 2, 5, 7, 3), (2, 2), (2, 2), NONE),
    ((3, 1, 7, 8, 4), (3, 2), (2, 1), ((1, 2), (1, 0))),
    ((2, 2, 5, 5, 5), (3, 3), (1, 1), ((1, 1), (1, 1))),
    ((1, 1, 9, 8, 36), (2, 1), (4, 3), NONE),
    ((2, 1, 13, 12, 4), (12, 11), (1, 1), ((0, 3), (4, 0))),
    ((1, 1, 1, 1, 1), (1, 1), (1, 1), NONE),
    ((2, 1, 21, 21, 64), (2, 2), (2, 2), NONE),
    ((2, 0, 4, 4, 3), (2, 2), (2, 2), NONE),
    ((0, 1, 4, 4, 4), (2, 2), (2, 2), NONE),
]
DTYPES = [np.float32, np.float64]


class Point:
    """Images and what is pooled of them, with places that are in the image."""

    def __init__(self, shape, window, stride, padding, dtype):
        rng = np.random.default_rng(5)
        self.dtype, self.small = np.dtype(dtype), np.dtype(np.int8 if prod(window) <= 127 else np.int32)
        self.static = {"window": window, "stride": stride, "padding": padding}
        self.image = shape
        self.pooled = (*shape[:2], *output_size(shape[2:4], window, stride, padding), shape[4])
        self.x = rng.integers(-3, 4, shape).astype(dtype)  # equal ones are in many windows
        self.g = rng.standard_normal(self.pooled).astype(dtype)
        scores = rng.standard_normal(shape)
        outs = [(self.pooled, np.float64), (self.pooled, self.small)]
        self.at = gpu_cases.reference(("pool", "max_pool"), outs, [scores], self.static)[1]

    def check(self, name, out, ins):
        static = {**self.static, "size": self.image[2:4]}
        gpu_cases.check(("pool", name), [(out, self.dtype)], ins, static)

    def check_largest(self, x):
        outs = [(self.pooled, self.dtype), (self.pooled, self.small)]
        gpu_cases.check(("pool", "max_pool"), outs, [x], self.static)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_poolings(case, dtype):
    p = Point(*case, dtype)
    p.check_largest(p.x)
    p.check("pool_take", p.pooled, [p.x, p.at])
    p.check("pool_put", p.image, [p.g, p.at])
    p.check("avg_pool", p.pooled, [p.x])
    p.check("avg_spread", p.image, [p.g])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 8])
def test_what_is_not_a_number_is_the_largest(channels, dtype):
    p = Point((2, 2, 6, 8, channels), (3, 2), (2, 2), ((1, 1), (0, 1)), dtype)
    rng = np.random.default_rng(6)
    x = p.x.copy()
    x[rng.random(x.shape) < 0.2] = np.nan
    x[rng.random(x.shape) < 0.2] = -np.inf
    outs = [(p.pooled, p.dtype), (p.pooled, p.small)]
    actual, expected = (f(("pool", "max_pool"), outs, [x], p.static) for f in (gpu_cases.run, gpu_cases.reference))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isnan(actual[0]).any()


@pytest.mark.parametrize("channels", [4, 6])
def test_operands_of_any_layout(channels):
    """One task for all, every other channel, images from last to first; rows that four at once are not aligned to."""
    p = Point((3, 2, 6, 5, channels), (2, 2), (2, 2), NONE, np.float32)
    layouts = [
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.repeat(a, 2, -1)[..., ::2],
        lambda a: np.concatenate([a, a])[: len(a), ::-1],
        lambda a: np.concatenate([a[:, :1] * 0, a], 1)[:, 1:],
        lambda a: np.concatenate([[a.dtype.type(0)], a.ravel()])[1:].reshape(a.shape),
    ]
    for lay in layouts:
        p.check_largest(lay(p.x))
        p.check("pool_take", p.pooled, [lay(p.x), lay(p.at)])
        p.check("pool_put", p.image, [lay(p.g), lay(p.at)])
        p.check("avg_pool", p.pooled, [lay(p.x)])
        p.check("avg_spread", p.image, [lay(p.g)])
