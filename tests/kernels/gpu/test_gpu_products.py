"""Dense products and convolutions on the GPU: every tile, sums in parts, shared operands, TF32."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cases import gpu_cases
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


@pytest.fixture(params=["wide tiles", "narrow tiles"])
def tiles(request, monkeypatch):
    """With the widest tiles, as if the GPU were small; or with the narrowest, and long sums in parts."""
    if request.param == "wide tiles":
        monkeypatch.setattr(products, "_FULL", 1)


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
@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, False), (False, True), (True, True)])
def test_linear(ta, tb, dtype, tiles):
    static = {"ta": ta, "tb": tb}
    for tasks, n, k, o in SIZES:
        a = normal(tasks, *((k, n) if ta else (n, k)), dtype=dtype)
        b = normal(tasks, *((o, k) if tb else (k, o)), dtype=dtype)
        gpu_cases.check(("linear", "linear"), [((tasks, n, o), dtype)], [a, b], static)
        gpu_cases.check(
            ("linear", "linear"), [((tasks, n, o), dtype)], [a, b[:1], normal(1, 1, o, dtype=dtype)], static
        )


def test_linear_operands():
    """Operands in any layout, and what is added broadcast in any way."""
    a, b, out = normal(3, 6, 5), normal(3, 5, 8), [((3, 6, 8), np.float32)]
    static = {"ta": False, "tb": False}
    for other in (np.broadcast_to(b[:1], b.shape), b[:, ::-1, ::-1], np.ascontiguousarray(b.transpose(2, 1, 0)).T):
        gpu_cases.check(("linear", "linear"), out, [a, other], static)
    for c in (normal(3, 1, 8), normal(1, 6, 8), normal(3, 6, 1), normal(3, 6, 8), normal(8), normal(1, 1, 1)):
        gpu_cases.check(("linear", "linear"), out, [a, b, c], static)


def test_stacks():
    a, b, c = normal(2, 3, 4, 5), normal(3, 5, 6), normal(2, 1, 4, 6)
    gpu_cases.check(("linear", "linear"), [((2, 3, 4, 6), np.float32)], [a, b, c], {"ta": False, "tb": False})
    gpu_cases.check(("linear", "linear"), [((4, 6), np.float32)], [a[0, 0], b[0]], {"ta": False, "tb": False})


def test_more_tasks_than_a_grid_has(monkeypatch):
    """The third axis of a grid has 65 535 blocks at most."""
    assert products._TASKS == 65535
    monkeypatch.setattr(products, "_TASKS", 3)
    out, static = [((7, 2, 3), np.float32)], {"ta": False, "tb": False}
    a, b = normal(7, 2, 1500), normal(7, 1500, 3)
    for ins in ([a, b], [a, b[:1], normal(7, 1, 3)], [a[:1], b, normal(1, 2, 3)], [a, b, normal(3)]):
        launched = names(linear.linear, out, ins, static)
        assert len(launched) == 6  # three stretches of tasks, each with its sum in parts
        gpu_cases.check(("linear", "linear"), out, ins, static)


# (tasks, images, height, width, channels, filters, window, stride, padding)
IMAGES = [
    (1, 2, 6, 7, 36, 36, (3, 3), (1, 1), ((1, 1), (1, 1))),
    (1, 2, 13, 12, 1, 64, (3, 3), (2, 2), ((0, 1), (0, 1))),
    (2, 1, 12, 11, 3, 32, (3, 3), (1, 1), ((1, 1), (1, 1))),
    (3, 1, 7, 6, 16, 32, (3, 3), (1, 1), ((1, 1), (1, 1))),
    (2, 2, 9, 7, 8, 12, (3, 2), (2, 3), ((2, 0), (1, 1))),
    (2, 1, 5, 5, 5, 3, (5, 5), (1, 1), ((0, 0), (0, 0))),
    (2, 2, 6, 6, 4, 4, (1, 1), (2, 2), ((0, 0), (0, 0))),
    (1, 40, 2, 2, 16, 16, (3, 3), (2, 2), ((0, 1), (0, 1))),
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
def test_conv(case, dtype, tiles):
    for name, shape, (a, b), static in triad(case, dtype):
        out = [(shape, dtype)]
        gpu_cases.check(("conv", name), out, [a, b], static)
        gpu_cases.check(("conv", name), out, [a, np.broadcast_to(b[:1], b.shape), normal(*shape, dtype=dtype)], static)
        gpu_cases.check(("conv", name), out, [a, b[:1]], static)
        if dtype == np.float32:
            gpu_cases.check(("conv", name), out, [a[:1, :, ::-1], b], static)
    name, shape, operands, static = next(triad(case, dtype))
    for tasks in (1, shape[0]):
        bias = normal(tasks, 1, 1, 1, shape[-1], dtype=dtype)
        gpu_cases.check(("conv", name), [(shape, dtype)], [*operands, bias], static)


def kernels_used():
    """The names of the kernels that the cases above launch."""
    used = set()
    for dtype in (np.float32, np.float64):
        for tasks, n, k, o in SIZES:
            ins = [normal(tasks, n, k, dtype=dtype), normal(tasks, k, o, dtype=dtype)]
            used.update(names(linear.linear, [((tasks, n, o), dtype)], ins, {"ta": False, "tb": False}))
        for case in IMAGES:
            for name, shape, ins, static in triad(case, dtype):
                used.update(names(getattr(conv, name), [(shape, dtype)], ins, static))
    return used


def test_every_engine_is_used(monkeypatch):
    """By the cases above, together; and sums in parts."""
    used = kernels_used()
    assert {"add_parts<float>", "add_parts<double>"} <= used
    monkeypatch.setattr(products, "_FULL", 1)
    used |= kernels_used()
    set_precision("tf32")
    try:
        used |= kernels_used()
    finally:
        set_precision("fp32")
    monkeypatch.undo()
    results = {re.search(r"<(\w+<.*?>)", name)[1] for name in used if "<Simt" in name or "<Tensor" in name}
    assert results | {products.ENGINES["tf32"][-1].name} == {e.name for own in products.ENGINES.values() for e in own}


@pytest.mark.parametrize("case", IMAGES[:5])
def test_tf32(case, tf32, tiles):
    for name, shape, ins, static in triad(case, np.float32):
        launched = names(getattr(conv, name), [(shape, np.float32)], ins, static)
        assert all("Tensor" in own or "add_parts" in own for own in launched)
        gpu_cases.check(("conv", name), [(shape, np.float32)], ins, static, tolerance=1e-3)
        (actual,) = gpu_cases.run(("conv", name), [(shape, np.float32)], ins, static)
        (expected,) = gpu_cases.reference(("conv", name), [(shape, np.float32)], ins, static)
        assert gpu_cases.distance(actual, expected) > 1e-5, "this was not TF32"


def test_tf32_linear(tf32):
    a, b = normal(2, 70, 44), normal(2, 44, 50)
    for ta, tb in ((False, False), (True, False), (False, True), (True, True)):
        ins = [a.swapaxes(1, 2).copy() if ta else a, b.swapaxes(1, 2).copy() if tb else b]
        gpu_cases.check(("linear", "linear"), [((2, 70, 50), np.float32)], ins, {"ta": ta, "tb": tb}, tolerance=1e-3)
    c = normal(2, 70, 44, dtype=np.float64)
    gpu_cases.check(("linear", "linear"), [((2, 70, 70), np.float64)], [c, c], {"ta": False, "tb": True})


def test_an_old_gpu_has_no_tf32(tf32, gpu, monkeypatch):
    monkeypatch.setattr(gpu.cuda, "Device", lambda: SimpleNamespace(compute_capability="75"))
    with pytest.raises(ValueError, match=r"has no TF32, which needs compute capability 8\.0"):
        gpu_cases.run(
            ("linear", "linear"), [((1, 2, 2), np.float32)], [normal(1, 2, 2)] * 2, {"ta": False, "tb": False}
        )


def test_divisors():
    numbers = np.unique(np.concatenate([np.arange(2000), RNG.integers(0, 2**31, 2000), [2**31 - 1]]))
    for by in [*range(1, 200), 1000, 7056, 65537, 2**20, 2**31 - 1]:
        packed = int(products.divisor(by))
        results = [(((packed >> 6) * n >> 32) + n) >> (packed & 63) for n in numbers.tolist()]
        assert results == (numbers // by).tolist()
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
    actual = []
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
        actual.append(np.array_equal(*results))
    assert actual == [False, True]
