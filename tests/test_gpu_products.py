"""Dense products and convolutions on the GPU: every tile, sums in parts, shared operands, TF32."""

import re
import sys

import numpy as np
import pytest

from tests import gpu_cases
from tinymaml.kernels.gpu import conv, linear, products
from tinymaml.kernels.gpu.launch import Plan, Unit, set_precision, source

pytestmark = pytest.mark.usefixtures("gpu")

RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


@pytest.fixture
def tf32():
    set_precision("tf32")
    yield
    set_precision("fp32")


def names(run, outs, ins, static):
    """Of the kernels that a call launches."""
    plan = Plan()
    run(plan, [gpu_cases.put(np.empty(shape, dtype)) for shape, dtype in outs], list(map(gpu_cases.put, ins)), **static)
    return [launch.name for launch in plan.launches]


# (tasks, rows, steps, columns): the widest tile and more, one ragged in every direction, sums in parts, single numbers
SIZES = [
    (3, 260, 36, 132),
    (2, 131, 33, 67),
    (1, 5, 3000, 7),
    (1, 64, 2048, 64),
    (4, 10, 40, 40),
    (1, 1, 1, 1),
    (2, 3, 0, 4),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_linear(sizes, ta, tb, dtype):
    tasks, n, k, o = sizes
    static = {"ta": ta, "tb": tb}
    a = normal(tasks, *((k, n) if ta else (n, k)), dtype=dtype)
    shared = normal(1, *((o, k) if tb else (k, o)), dtype=dtype)
    own = normal(tasks, *shared.shape[1:], dtype=dtype)
    for b in (shared, own, np.broadcast_to(shared, own.shape), own[:, ::-1, ::-1]):
        gpu_cases.check("linear.linear", [((tasks, n, o), dtype)], [a, b], static)
    for c in (normal(tasks, 1, o), normal(1, n, o), normal(tasks, n, 1), normal(tasks, n, o)):
        gpu_cases.check("linear.linear", [((tasks, n, o), dtype)], [a, own, c.astype(dtype)], static)


def test_stacks():
    a, b, c = normal(2, 3, 4, 5), normal(3, 5, 6), normal(2, 1, 4, 6)
    gpu_cases.check("linear.linear", [((2, 3, 4, 6), np.float32)], [a, b, c], {"ta": False, "tb": False})
    gpu_cases.check("linear.linear", [((4, 6), np.float32)], [a[0, 0], b[0]], {"ta": False, "tb": False})


# (tasks, images, height, width, channels, filters, window, stride, padding)
IMAGES = [
    (2, 3, 14, 14, 64, 64, (3, 3), (1, 1), ((1, 1), (1, 1))),
    (1, 5, 28, 28, 1, 64, (3, 3), (2, 2), ((0, 1), (0, 1))),
    (2, 2, 21, 20, 3, 32, (3, 3), (1, 1), ((1, 1), (1, 1))),
    (3, 2, 10, 11, 32, 32, (3, 3), (1, 1), ((1, 1), (1, 1))),
    (2, 2, 9, 7, 8, 12, (3, 2), (2, 3), ((2, 0), (1, 1))),
    (2, 1, 5, 5, 5, 3, (5, 5), (1, 1), ((0, 0), (0, 0))),
    (2, 2, 6, 6, 4, 4, (1, 1), (2, 2), ((0, 0), (0, 0))),
    (1, 75, 2, 2, 64, 64, (3, 3), (2, 2), ((0, 1), (0, 1))),
    (1, 0, 4, 4, 4, 4, (3, 3), (1, 1), ((1, 1), (1, 1))),
]


def triad(case, dtype):
    """(name, shape of what comes out, operands, static) of the three kernels."""
    tasks, images, height, width, channels, filters, window, stride, padding = case
    p, q = [(n + sum(pad) - k) // s + 1 for n, k, s, pad in zip((height, width), window, stride, padding, strict=True)]
    x, w = (
        normal(tasks, images, height, width, channels, dtype=dtype),
        normal(tasks, *window, channels, filters, dtype=dtype),
    )
    g = normal(tasks, images, p, q, filters, dtype=dtype)
    static = {"stride": stride, "padding": padding}
    yield "conv2d", g.shape, [x, w], static
    yield "conv2d_dx", x.shape, [g, w], {**static, "size": (height, width)}
    yield "conv2d_dw", w.shape, [x, g], {**static, "size": window}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", IMAGES)
def test_conv(case, dtype):
    for name, shape, (a, b), static in triad(case, dtype):
        out = [(shape, dtype)]
        gpu_cases.check(f"conv.{name}", out, [a, b], static)
        gpu_cases.check(f"conv.{name}", out, [a, np.broadcast_to(b[:1], b.shape), normal(*shape, dtype=dtype)], static)
        gpu_cases.check(f"conv.{name}", out, [a, b[:1]], static)
        gpu_cases.check(f"conv.{name}", out, [a[:1, :, ::-1], b], static)
    name, shape, operands, static = next(triad(case, dtype))
    for tasks in (1, shape[0]):
        bias = normal(tasks, 1, 1, 1, shape[-1], dtype=dtype)
        gpu_cases.check(f"conv.{name}", [(shape, dtype)], [*operands, bias], static)


def test_every_engine_is_used():
    """By the cases above, together; and sums in parts."""
    used = set()
    for dtype in (np.float32, np.float64):
        for tasks, n, k, o in SIZES:
            ins = [normal(tasks, n, k, dtype=dtype), normal(tasks, k, o, dtype=dtype)]
            used.update(names(linear.linear, [((tasks, n, o), dtype)], ins, {"ta": False, "tb": False}))
        for case in [*IMAGES, (8, 5, 28, 28, 64, 64, *IMAGES[0][6:]), (8, 5, 42, 42, 32, 32, *IMAGES[0][6:])]:
            for name, shape, ins, static in triad(case, dtype):
                used.update(names(getattr(conv, name), [(shape, dtype)], ins, static))
    engines = {re.search(r"<(\w+<.*?>)", name)[1] for name in used if "Simt" in name}
    assert engines == {engine.name for kind in ("fp32", "fp64") for engine in products.ENGINES[kind]}
    assert {"add_parts<float>", "add_parts<double>"} <= used


@pytest.mark.parametrize(
    "case", [*IMAGES[:4], (4, 5, 14, 14, 64, 64, *IMAGES[0][6:]), (4, 5, 28, 28, 32, 32, *IMAGES[0][6:])]
)
def test_tf32(case, tf32):
    for name, shape, ins, static in triad(case, np.float32):
        assert all(
            "Tensor" in own or "add_parts" in own
            for own in names(getattr(conv, name), [(shape, np.float32)], ins, static)
        )
        gpu_cases.check(f"conv.{name}", [(shape, np.float32)], ins, static, tolerance=1e-3)
        (found,) = gpu_cases.run(f"conv.{name}", [(shape, np.float32)], ins, static)
        (expected,) = gpu_cases.reference(f"conv.{name}", [(shape, np.float32)], ins, static)
        assert gpu_cases.distance(found, expected) > 1e-5, "this was not TF32"


def test_tf32_linear(tf32):
    a, b = normal(2, 70, 90), normal(2, 90, 50)
    for ta, tb in ((False, False), (True, False), (False, True), (True, True)):
        ins = [a.swapaxes(1, 2).copy() if ta else a, b.swapaxes(1, 2).copy() if tb else b]
        gpu_cases.check("linear.linear", [((2, 70, 50), np.float32)], ins, {"ta": ta, "tb": tb}, tolerance=1e-3)
    c = normal(2, 70, 90, dtype=np.float64)
    gpu_cases.check("linear.linear", [((2, 70, 70), np.float64)], [c, c], {"ta": False, "tb": True})


def test_divisors():
    numbers = np.unique(np.concatenate([np.arange(2000), RNG.integers(0, 2**31, 2000), [2**31 - 1]]))
    for by in [*range(1, 200), 1000, 7056, 65537, 2**20, 2**31 - 1]:
        packed = int(products.divisor(by))
        found = [(((packed >> 6) * n >> 32) + n) >> (packed & 63) for n in numbers.tolist()]
        assert found == (numbers // by).tolist()
        assert packed >> 6 < 2**32


def test_a_missing_barrier_is_found(gpu):
    """The same product, but for the barrier after a tile is stored, depends on the order of threads, or stops."""
    if not hasattr(gpu, "REVERSED"):
        pytest.skip("a GPU may well run it right by chance: this is a test of the stand-in")
    whole = source("linear.cuh")
    marker = "        __syncthreads();\n    }\n    engine.each"
    assert whole.count(marker) == 1
    name = f"linear<{products.ENGINES['fp32'][-1].name}, 1, false, false>"
    broken = Unit(whole.replace(marker, "    }\n    engine.each"), (name,))
    a, b = (gpu_cases.put(normal(1, 64, 96)), gpu_cases.put(normal(1, 96, 32)))
    found = []
    for text in (broken, Unit(whole, (name,))):
        results = []
        for backwards in (False, True):
            y = sys.modules["cupy"].empty((1, 64, 32), np.float32)
            plan, null = Plan(), np.uint64(0)
            plan.launch_of(text, name, (1, 1, 1), 128, a, b, null, y, 0, 0, 0, 0, 96, 1, 64, 32, 96)
            if backwards:
                with gpu_cases.lanes_reversed():
                    plan.run()
            else:
                plan.run()
            results.append(y.get())
        found.append(np.array_equal(*results))
    assert found == [False, True]
