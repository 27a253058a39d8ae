"""Kernels that normalise and pool at once equal the two one after the other, to the bit, and stand in for them."""

from itertools import product

import numpy as np
import pytest

import tinymaml as tm
from tests.compile.test_record import classification, same
from tinymaml import nets
from tinymaml.kernels import cpu

if not cpu.numba_is_used():
    pytest.skip("pairs are of compiled kernels: they need numba, of the extra `fast`", allow_module_level=True)

from tinymaml.kernels.cpu import norm as reference
from tinymaml.kernels.cpu.compiled.norm import can_pool

WINDOWS = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
# Images that fill several blocks, one, or a part of one; odd sizes, whose last row or column is in no window.
SHAPES = [(2, 3, 84, 84, 8), (2, 2, 42, 42, 32), (1, 3, 21, 21, 32), (3, 5, 10, 10, 32), (2, 4, 6, 4, 5),
          (1, 2, 2, 3, 64), (2, 2, 16, 16, 70), (1, 3, 5, 5, 3)]  # fmt: skip


def case(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    t, n, h, w, c = shape
    x, v = rng.normal(size=(2, *shape)).astype(dtype)
    g, vg = rng.normal(size=(2, t, n, h // 2, w // 2, c)).astype(dtype)
    gamma, beta, vgamma, vbeta = rng.normal(size=(4, t, c)).astype(dtype)
    places = rng.integers(0, 4, g.shape).astype(np.int8)
    y, mean, rstd = np.empty_like(x), np.empty_like(gamma), np.empty_like(gamma)
    reference.batch_norm([y, mean, rstd], [x, gamma, beta], 1e-3, True)
    return x, v, g, vg, gamma, beta, vgamma, vbeta, places, mean, rstd


def run(name, outs, ins, **static):
    """What the compiled kernel and the reference give, in turn."""
    actual = []
    for kernel in (cpu.numba_kernel("norm", name), cpu.numpy_kernel("norm", name)):
        given = [np.full(shape, 7, dtype) for shape, dtype in outs]
        kernel(given, ins, **static)
        actual.append(given)
    return actual


def near(actual, wanted, dtype):
    for one, other in zip(actual, wanted, strict=True):
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(one, other, atol=(1e-4 if dtype == np.float32 else 1e-11) * scale, rtol=0)


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_compiled_equals_reference(shape, dtype, rectified):
    x, v, g, vg, gamma, beta, vgamma, vbeta, places, mean, rstd = case(shape, dtype)
    static = {"eps": 1e-3, "rectified": rectified}
    per_task, image, small = (gamma.shape, dtype), (x.shape, dtype), (g.shape, dtype)
    outs = [small, (g.shape, np.int8), per_task, per_task]
    actual, wanted = run("batch_norm_pool", outs, [x, gamma, beta], **static)
    near([actual[0], *actual[2:]], [wanted[0], *wanted[2:]], dtype)
    for given in product([True, False], repeat=3):
        vs = [a for a, there in zip((v, vgamma, vbeta), given, strict=True) if there]
        if vs:
            ins = [x, gamma, beta, mean, rstd, *vs, places]
            near(*run("batch_norm_tangent_pool", [small], ins, given=given, **static), dtype)
    ins = [x, gamma, beta, g, mean, rstd, places]
    near(*run("batch_norm_gradient_pool", [image, per_task, per_task], ins, **static), dtype)
    for given in product([True, False], repeat=3):
        vs = [a for a, there in zip((v, vgamma, vg), given, strict=True) if there]
        if vs:
            ins = [x, gamma, beta, g, mean, rstd, *vs, places]
            given = (*given[:2], False, given[2])
            near(*run("batch_norm_hessian_pool", [image, per_task, per_task], ins, given=given, **static), dtype)


def test_most_sizes_can_pool():
    assert [can_pool(shape, **WINDOWS) for shape in SHAPES] == [True] * 7 + [False]
    assert not can_pool((1, 1, 8, 8, 4), (3, 3), (2, 2), ((0, 0), (0, 0)))
    assert not can_pool((1, 1, 8, 8, 4), (2, 2), (2, 2), ((0, 1), (0, 1)))
    assert not can_pool((1, 0, 8, 8, 4), **WINDOWS)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("order", [1, 2])
def test_a_program_has_pairs_and_gives_the_same_bits(shape, order):
    _, n, h, w, c = shape
    rng = np.random.default_rng(0)
    x, y, t = (rng.normal(size=s).astype(np.float32) for s in (shape, (shape[0], n, h // 2, w // 2, c), shape))
    gamma = rng.normal(size=(shape[0], c)).astype(np.float32)

    def f(p):
        pooled = tm.max_pool2d(tm.batch_norm_relu(p["x"], p["gamma"]), 2)
        return tm.sum(pooled * pooled * y)

    def step(p, v):
        return tm.grad(f)(p) if order == 1 else tm.hvp(f, p, v)

    p, v = {"x": x, "gamma": gamma}, {"x": t, "gamma": gamma + 1}
    program = tm.record(step, p, v)
    name = "batch_norm_gradient_pool" if order == 1 else "batch_norm_hessian_pool"
    assert (name in program.explain()) == can_pool(shape, **WINDOWS)
    same(program(p, v), step(p, v))


def test_a_network_has_no_other():
    step, arguments = classification("max-pool")
    explained = tm.record(step, *arguments).explain()
    for name in (
        "norm.batch_norm_pool",
        "batch_norm_tangent_pool",
        "batch_norm_gradient_pool",
        "batch_norm_hessian_pool",
    ):
        assert name in explained
    assert "pool.max_pool" not in explained and "pool.pool_put" not in explained


def test_what_is_read_between_stays():
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8, 4)).astype(np.float32)

    def step(x):
        y = tm.batch_norm_relu(x)
        return y, tm.max_pool2d(y, 2)

    program = tm.record(step, x)
    assert "batch_norm_pool" not in program.explain()
    results = program(x)
    same(results, [part.numpy() for part in step(tm.as_tensor(x))])


def test_other_windows():
    model = nets.conv_net((9, 9, 1), 3, 4, 1, downsample="max-pool")
    params = model.init(np.random.default_rng(0))
    x = np.random.default_rng(1).random((2, 3, 9, 9, 1)).astype(np.float32)

    def step(params, x):
        return tm.sum(tm.max_pool2d(tm.batch_norm_relu(x), 3, stride=2)), tm.sum(model.apply(params, x))

    same(tm.record(step, params, x)(params, x), [part.numpy() for part in step(params, tm.as_tensor(x))])
