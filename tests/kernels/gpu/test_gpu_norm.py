"""Batch normalisation on the GPU, alone and followed by max-pooling, equals the reference."""

from itertools import product

import numpy as np
import pytest

from tests.cases import gpu_cases
from tinymaml.kernels.gpu.norm import can_pool

pytestmark = pytest.mark.usefixtures("gpu")

EPS = 1e-3
WINDOWS = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
# One launch and two, one group of channels and several, threads along channels one by one and four by four.
SHAPES = [(1, 1, 1), (2, 5, 3), (3, 1, 64), (2, 7, 5, 20), (1, 1100, 4), (2, 4300, 1), (3, 400, 70), (1, 2, 21, 19, 32),
          (4, 700, 36), (2, 2500, 64), (0, 5, 4), (2, 3, 0)]  # fmt: skip
# Odd sizes, whose last row or column is in no window.
IMAGES = [
    (2, 3, 2, 2, 64),
    (1, 2, 5, 5, 3),
    (3, 1, 3, 2, 20),
    (2, 2, 21, 20, 32),
    (1, 9, 13, 9, 70),
    (2, 5, 14, 15, 48),
]
DTYPES = [np.float32, np.float64]
ALL_3, ALL_4 = (True,) * 3, (True,) * 4
GIVEN_3, GIVEN_4 = ([given for given in product([True, False], repeat=n) if any(given)] for n in (3, 4))


class Point:
    """Where derivatives are taken and along what, with gammas of 0 and a constant channel."""

    def __init__(self, shape, dtype, *, pools=False, rectified=True):
        rng = np.random.default_rng(3)

        def normal(shape):
            return rng.standard_normal(shape).astype(dtype)

        self.dtype, self.static, self.suffix = np.dtype(dtype), {"eps": EPS, "rectified": rectified}, "_pool" * pools
        self.pooled = (*shape[:2], shape[2] // 2, shape[3] // 2, shape[4]) if pools else shape
        self.per_task = (shape[0], shape[-1])
        self.x, self.vx, self.g, self.vg = map(normal, (shape, shape, self.pooled, self.pooled))
        self.gamma, self.beta, self.vgamma, self.vbeta = (normal(self.per_task) for _ in range(4))
        self.gamma[:, ::5] = 0
        self.x[..., -1:] = 0.7
        self.places = [rng.integers(0, 4, self.pooled).astype(np.int8)] * pools

    def specs(self, *shapes):
        return [(shape, self.dtype) for shape in shapes]

    @property
    def value_specs(self):
        places = [(self.pooled, np.dtype(np.int8))] if self.suffix else []
        return [(self.pooled, self.dtype), *places, *self.specs(self.per_task, self.per_task)]

    def statistics(self):
        """As the reference gives them, rounded."""
        specs = [(shape, np.float64) for shape in (self.x.shape, self.per_task, self.per_task)]
        actual = gpu_cases.reference(("norm", "batch_norm"), specs, [self.x, self.gamma, self.beta], self.static)
        return [x.astype(self.dtype) for x in actual[1:]]

    def check(self, given_3=(ALL_3,), given_4=(ALL_4,)):
        point, statistics = [self.x, self.gamma, self.beta], self.statistics()
        gpu_cases.check(("norm", f"batch_norm{self.suffix}"), self.value_specs, point, self.static)
        self.check_derivatives(point, statistics, given_3, given_4)

    def check_derivatives(self, point, statistics, given_3, given_4):
        specs = self.specs(self.x.shape, self.per_task, self.per_task)
        ins = [*point, self.g, *statistics]
        gpu_cases.check(("norm", f"batch_norm_gradient{self.suffix}"), specs, [*ins, *self.places], self.static)
        for given in given_3:
            inputs = [*point, *statistics, *self.tangents(given), *self.places]
            static = {**self.static, "given": given}
            gpu_cases.check(("norm", f"batch_norm_tangent{self.suffix}"), self.specs(self.pooled), inputs, static)
        for given in given_4:
            inputs = [*ins, *self.tangents(given), *self.places]
            gpu_cases.check(
                ("norm", f"batch_norm_hessian{self.suffix}"), specs, inputs, {**self.static, "given": given}
            )

    def tangents(self, given):
        return [v for v, is_there in zip((self.vx, self.vgamma, self.vbeta, self.vg), given, strict=False) if is_there]


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, dtype, rectified):
    Point(shape, dtype, rectified=rectified).check()


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_pooled(shape, dtype, rectified):
    assert can_pool(shape, **WINDOWS)
    Point(shape, dtype, pools=True, rectified=rectified).check()


@pytest.mark.parametrize("pools", [True, False])
@pytest.mark.parametrize(("dtype", "channels"), [(np.float32, 8), (np.float32, 5), (np.float64, 5)])
def test_every_choice_of_tangents(dtype, channels, pools):
    Point((2, 3, 5, 4, channels), dtype, pools=pools).check(GIVEN_3, GIVEN_4)


def test_tangents_of_some_when_a_task_takes_two_launches():
    Point((1, 900, 32), np.float32).check(GIVEN_3, GIVEN_4)


@pytest.mark.parametrize("pools", [True, False])
@pytest.mark.parametrize(
    "lay",
    [
        lambda a: np.broadcast_to(a[:1], a.shape),  # one entry for all tasks
        lambda a: np.repeat(a, 2, -1)[..., ::2],
        lambda a: a[::-1],
        lambda a: np.concatenate([a[:1], a])[1:],
        lambda a: np.concatenate([a, a], 1)[:, : a.shape[1]],  # further from task to task
        lambda a: np.concatenate([[a.dtype.type(0)], a.ravel()])[1:].reshape(a.shape),  # not aligned to four at once
        lambda a: np.broadcast_to(a[:, :1], a.shape),
    ],
    ids=["shared", "spread", "backwards", "later", "apart", "off", "along"],
)
def test_operands_of_any_layout(lay, pools):
    p = Point((3, 2, 6, 5, 8), np.float32, pools=pools)
    for name in ("x", "vx", "g", "vg", "gamma", "beta", "vgamma", "vbeta"):
        setattr(p, name, lay(getattr(p, name)))
    p.places = [lay(at) for at in p.places]
    p.check()


# What the statistics are like in single precision.


@pytest.mark.parametrize("shape", [(2, 7, 6), (2, 900, 36), (1, 1500, 3), (2, 3, 20, 21, 8)], ids=str)
def test_equal_numbers_come_out_as_beta(shape):
    p = Point(shape, np.float32, rectified=False)
    p.x[...] = np.random.default_rng(0).standard_normal(p.per_task).reshape(shape[0], *[1] * (len(shape) - 2), -1)
    y, mean, rstd = gpu_cases.run(("norm", "batch_norm"), p.value_specs, [p.x, p.gamma, p.beta], p.static)
    np.testing.assert_array_equal(mean, p.x.reshape(shape[0], -1, shape[-1])[:, 0])
    np.testing.assert_array_equal(y, np.broadcast_to(p.beta.reshape(shape[0], *[1] * (len(shape) - 2), -1), shape))
    np.testing.assert_allclose(rstd, EPS**-0.5, rtol=1e-6)


@pytest.mark.parametrize("pools", [True, False])
@pytest.mark.parametrize("shape", [(2, 2, 5, 7, 6), (2, 3, 20, 21, 32), (1, 4, 31, 30, 7)], ids=str)
def test_far_from_zero(shape, pools):
    """Mean and 1/std, and the derivatives at them, lose nothing. The value does, as the mean is rounded to single
    precision: half of an ulp of it, 2^-14 at 1e3, is so much of a standard deviation of about 1.
    """
    p = Point(shape, np.float32, pools=pools, rectified=False)
    p.x[..., :-1] += 1000
    statistics = p.statistics()
    actual = gpu_cases.run(("norm", f"batch_norm{p.suffix}"), p.value_specs, [p.x, p.gamma, p.beta], p.static)
    wanted = gpu_cases.reference(("norm", f"batch_norm{p.suffix}"), p.value_specs, [p.x, p.gamma, p.beta], p.static)
    assert gpu_cases.distance(actual[0], wanted[0]) <= 2**-14
    assert gpu_cases.distance(actual[-2], wanted[-2]) <= 1e-6
    assert gpu_cases.distance(actual[-1], wanted[-1]) <= 1e-5
    p.check_derivatives([p.x, p.gamma, p.beta], statistics, [ALL_3], [ALL_4])


@pytest.mark.parametrize("shape", [(1, 30, 4), (1, 900, 32), (1, 5000, 3)], ids=str)
def test_a_first_example_that_is_far_off(shape):
    p = Point(shape, np.float32, rectified=False)
    p.x[:, 0] = 1000
    gpu_cases.check(("norm", "batch_norm"), p.value_specs, [p.x, p.gamma, p.beta], p.static)


@pytest.mark.parametrize("rectified", [True, False])
def test_what_is_not_a_number_stays_and_is_pooled(rectified):
    p = Point((2, 2, 6, 4, 8), np.float32, pools=True, rectified=rectified)
    p.x[1, 0, 2, 3, 5] = np.nan
    actual, wanted = (
        f(("norm", "batch_norm_pool"), p.value_specs, [p.x, p.gamma, p.beta], p.static)
        for f in (gpu_cases.run, gpu_cases.reference)
    )
    np.testing.assert_array_equal(actual[1], wanted[1])
    for one, other in zip(actual, wanted, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    assert np.isnan(actual[0][1, ..., 5]).all() and not np.isnan(np.delete(actual[0], 5, -1)).any()


@pytest.mark.parametrize("rectified", [True, False])
def test_a_tangent_masks_nothing(rectified):
    p = Point((2, 9, 4), np.float32, rectified=rectified)
    p.x[1, 3, 2] = np.nan
    ins = [p.x, p.gamma, p.beta, *p.statistics(), *p.tangents(ALL_3)]
    static = {**p.static, "given": ALL_3}
    actual, wanted = (
        f(("norm", "batch_norm_tangent"), p.specs(p.x.shape), ins, static)[0]
        for f in (gpu_cases.run, gpu_cases.reference)
    )
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(wanted))
    assert np.isnan(actual).any() != rectified


def test_which_images_can_be_pooled():
    for shape, dictionary, can in [
        ((2, 3, 84, 84, 32), {}, True),
        ((1, 3, 5, 5, 3), {}, True),
        ((1, 3, 1, 5, 3), {}, False),
        ((1, 0, 4, 4, 3), {}, False),
        ((1, 1, 8, 8, 4), {"window": (3, 3)}, False),
        ((1, 1, 8, 8, 4), {"stride": (1, 2)}, False),
        ((1, 1, 8, 8, 4), {"padding": ((0, 1), (0, 0))}, False),
    ]:
        assert can_pool(shape, **{**WINDOWS, **dictionary}) is can
