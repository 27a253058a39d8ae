"""Batch normalisation on the GPU, alone and followed by max-pooling, equals the reference."""

from itertools import product

import numpy as np
import pytest

from tests import gpu_cases
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
GIVEN_3 = [given for given in product([True, False], repeat=3) if any(given)]
GIVEN_4 = [given for given in product([True, False], repeat=4) if any(given)]


class Point:
    """Where derivatives are taken, and along what: a gamma of 0, a constant channel, and nothing near the kink."""

    def __init__(self, shape, dtype, *, pools=False, rectified=True, shared=False):
        rng = np.random.default_rng(3)
        self.shape, self.dtype, self.static = shape, np.dtype(dtype), {"eps": EPS, "rectified": rectified}
        tasks, channels = shape[0], shape[-1]
        self.per_task = (tasks, channels)
        self.pooled = (*shape[:2], shape[2] // 2, shape[3] // 2, channels) if pools else shape

        def normal(shape):
            return rng.standard_normal(shape).astype(dtype)

        self.x, self.vx, self.g, self.vg = map(normal, (shape, shape, self.pooled, self.pooled))
        self.gamma, self.vgamma, self.vbeta = (normal(self.per_task) for _ in range(3))
        self.beta = normal(self.per_task)
        if shared:
            self.gamma, self.beta, self.vgamma = (
                np.broadcast_to(p[:1], self.per_task) for p in (self.gamma, self.beta, self.vgamma)
            )
        else:
            self.gamma[:, ::5] = 0
        self.x[..., -1:] = 0.7
        images = (self.x.shape, np.float64)
        y, mean, rstd = gpu_cases.reference(
            "norm.batch_norm", [images, (self.per_task, np.float64), (self.per_task, np.float64)],
            [self.x, self.gamma, self.beta], {"eps": EPS, "rectified": False},
        )  # fmt: skip
        self.x = np.where(np.abs(y) < 1e-4, self.x + dtype(0.01), self.x) if channels > 1 else self.x
        self.mean, self.rstd = mean.astype(dtype), rstd.astype(dtype)
        self.places = rng.integers(0, 4, self.pooled).astype(np.int8)

    def check(self, name, outs, ins, **static):
        shapes = {"image": self.shape, "pooled": self.pooled, "task": self.per_task}
        specs = [(self.pooled, np.int8) if out == "places" else (shapes[out], self.dtype) for out in outs]
        gpu_cases.check(f"norm.{name}", specs, ins, {**self.static, **static})

    def tangents(self, given):
        return [v for v, is_there in zip((self.vx, self.vgamma, self.vbeta, self.vg), given, strict=False) if is_there]

    def check_all(self, suffix="", given_3=GIVEN_3[:1], given_4=GIVEN_4[:1]):
        places = [self.places] if suffix else []
        parameters, statistics = [self.x, self.gamma, self.beta], [self.mean, self.rstd]
        self.check(f"batch_norm{suffix}", ["pooled", *["places"] * bool(suffix), "task", "task"], parameters)
        ins = [*parameters, self.g, *statistics]
        self.check(f"batch_norm_gradient{suffix}", ["image", "task", "task"], [*ins, *places])
        for given in given_3:
            own = [*parameters, *statistics, *self.tangents(given), *places]
            self.check(f"batch_norm_tangent{suffix}", ["pooled"], own, given=given)
        for given in given_4:
            own = [*ins, *self.tangents(given), *places]
            self.check(f"batch_norm_hessian{suffix}", ["image", "task", "task"], own, given=given)


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, dtype, rectified):
    Point(shape, dtype, rectified=rectified).check_all()


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_pooled(shape, dtype, rectified):
    assert can_pool(shape, **WINDOWS)
    Point(shape, dtype, pools=True, rectified=rectified).check_all("_pool")
