"""What each kernel reaches on a GPU, beside the GPU's own product of matrices and its copy in the same run.

A case is captured as a CUDA graph of many launches, and timed by events. The arrays of the large layers are larger than
any cache; those of the small ones are not, and their copies per second are those of the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.output import Row
from bench.worker import Worker
from bench.workloads import EPSILON, PRECISION, WORKLOADS, Images, same
from tinymaml.kernels import gpu
from tinymaml.kernels.gpu.launch import Plan

LAUNCHES, ROUNDS = 10, 15  # in a graph; graphs timed, of which the median counts
PRODUCT, COPIED = 8192, 1 << 31


class Case(NamedTuple):
    """A kernel on the arrays of one layer. `make()` allocates them and gives the plan and how much it does."""

    title: str
    unit: str  # TFLOP/s beside the product, TB/s beside the copy
    make: Callable[[], tuple[Plan, float]]


def normal(*shape: int) -> Any:
    """Numbers on the GPU: zeros would be quicker than real ones."""
    return gpu.cupy().asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def _plan(name: str, outs: Sequence[Any], ins: Sequence[Any], **static: Any) -> Plan:
    plan = Plan()
    gpu.planner(name)(plan, outs, ins, **static)
    return plan


def _bytes(*arrays: Any) -> float:
    return float(sum([a.nbytes for a in arrays]))


def _conv(which: str, w: Images, images: int, layer: int) -> tuple[Plan, float]:
    size, (p, q), i, o = w.layers()[layer]
    stride = 1 if w.pooled else 2
    static = {"stride": (stride, stride), "padding": (same(size[0], stride), same(size[1], stride))}
    x, y, k = normal(w.tasks, images, *size, i), normal(w.tasks, images, p, q, o), normal(w.tasks, 3, 3, i, o)
    outs, ins, more = {
        "conv2d": ([y], [x, k], {}),
        "conv2d_dx": ([x], [y, k], {"size": size}),
        "conv2d_dw": ([k], [x, y], {"size": (3, 3)}),
    }[which]
    return _plan(f"conv.{which}", outs, ins, **static, **more), 2.0 * w.tasks * images * p * q * 9 * i * o


def _norm(which: str, w: Images, images: int, layer: int) -> tuple[Plan, float]:
    _, (p, q), _, o = w.layers()[layer]
    x, y, g, v, vg = (normal(w.tasks, images, p, q, o) for _ in range(5))
    gamma, beta, vgamma, vbeta, mean, rstd, dgamma, dbeta = (normal(w.tasks, o) for _ in range(8))
    static = {"eps": EPSILON, "rectified": True}
    value = _plan("norm.batch_norm", [y, mean, rstd], [x, gamma, beta], **static)
    if which == "batch_norm":
        return value, _bytes(x, y)
    value.run()  # for the mean and 1 / std, which the others read
    point = [x, gamma, beta, mean, rstd]
    if which == "batch_norm_tangent":
        return _plan(f"norm.{which}", [y], [*point, v, vgamma, vbeta], given=(True,) * 3, **static), _bytes(x, v, y)
    at = [x, gamma, beta, g, mean, rstd]
    if which == "batch_norm_gradient":
        return _plan(f"norm.{which}", [y, dgamma, dbeta], at, **static), _bytes(x, g, y)
    ins = [*at, v, vgamma, vbeta, vg]
    return _plan(f"norm.{which}", [y, dgamma, dbeta], ins, given=(True,) * 4, **static), _bytes(x, g, v, vg, y)


def _pooled(w: Images, images: int, layer: int) -> tuple[Plan, float]:
    _, (p, q), _, o = w.layers()[layer]
    x, y = normal(w.tasks, images, p, q, o), normal(w.tasks, images, p // 2, q // 2, o)
    places = gpu.cupy().empty(y.shape, np.int8)
    gamma, beta, mean, rstd = (normal(w.tasks, o) for _ in range(4))
    plan = _plan("norm.batch_norm_pool", [y, places, mean, rstd], [x, gamma, beta], eps=EPSILON, rectified=True)
    return plan, _bytes(x, y, places)


def _relu(w: Images, images: int, layer: int) -> tuple[Plan, float]:
    _, (p, q), _, o = w.layers()[layer]
    x, y = normal(w.tasks, images, p, q, o), normal(w.tasks, images, p, q, o)
    return _plan("elementwise.relu", [y], [x]), _bytes(x, y)


def cases(w: Images) -> Iterator[Case]:
    """Every kernel on every layer of the network, for the larger of support and query."""
    images = max(w.support, w.query)
    for layer, (size, result, i, o) in enumerate(w.layers()):
        x, y = (f"{images} x {'x'.join(map(str, shape))}" for shape in ((*size, i), (*result, o)))
        for which in ("conv2d", "conv2d_dx", "conv2d_dw"):
            if which != "conv2d_dx" or layer:  # nobody asks for the gradient by the images
                yield Case(f"{which}: {x} -> {y}", "TFLOP/s", partial(_conv, which, w, images, layer))
        for which in ("batch_norm", "batch_norm_gradient", "batch_norm_tangent", "batch_norm_hessian"):
            yield Case(f"{which} with ReLU: {y}", "TB/s", partial(_norm, which, w, images, layer))
        if w.pooled:
            yield Case(f"batch_norm_pool with ReLU: {y}", "TB/s", partial(_pooled, w, images, layer))
    yield Case(f"relu: {images} x {w.layers()[0][1]}", "TB/s", partial(_relu, w, images, 0))


def milliseconds(run: Callable[[], Any]) -> float:
    """Of one call of what can be captured in a graph: the median of graphs of many."""
    cupy = gpu.cupy()
    run()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        try:
            for _ in range(LAUNCHES):
                run()
        finally:
            graph = stream.end_capture()
        times = []
        for _ in range(ROUNDS + 1):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            graph.launch(stream)
            end.record(stream)
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end) / LAUNCHES)
    return float(np.median(times[1:]))  # the first warms up


class Gpu:
    """The GPU's own rates, and our kernels on the layers of a workload, in a process with its precision."""

    def __init__(self, workload: str) -> None:
        gpu.set_precision(PRECISION)
        w = WORKLOADS[workload]
        if not isinstance(w, Images):
            raise ValueError(f"{workload} has no images")
        self._workload = w

    def product(self) -> float:
        """TFLOP/s of a product of large matrices by cuBLAS, which goes by CUPY_TF32."""
        cupy = gpu.cupy()
        a, b = normal(PRODUCT, PRODUCT), normal(PRODUCT, PRODUCT)
        times = []
        for _ in range(6):  # cuBLAS is not captured
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            cupy.matmul(a, b)
            end.record()
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end))
        return float(2e-9 * PRODUCT**3 / np.median(times[1:]))

    def copy(self) -> float:
        """TB/s, read and written, of a copy from memory to memory."""
        cupy = gpu.cupy()
        a, b = cupy.cuda.alloc(COPIED), cupy.cuda.alloc(COPIED)
        times = []
        for _ in range(6):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            b.copy_from_device_async(a, COPIED)
            end.record()
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end))
        return float(2e-9 * COPIED / np.median(times[1:]))

    def kernels(self) -> list[list[Any]]:
        """(title, unit, rate) of all cases."""
        found: list[list[Any]] = []
        for case in cases(self._workload):
            plan, amount = case.make()
            found.append([case.title, case.unit, 1e-9 * amount / milliseconds(plan.run)])
        return found


def run(workloads: Sequence[str]) -> list[Row]:
    """The table of all kernels, in fp32 and TF32."""
    rows: list[Row] = []
    for precision in ("fp32", "tf32"):
        environment = {"BENCH_PRECISION": precision, "CUPY_TF32": str(int(precision == "tf32"))}
        for workload in workloads:
            with Worker("bench.gpu_kernels:Gpu", (workload,), os.environ | environment) as worker:
                rates = {"TFLOP/s": worker.ask("product", limit=60), "TB/s": worker.ask("copy", limit=60)}
                found = worker.ask("kernels", limit=150)
            w, product, copied = WORKLOADS[workload], rates["TFLOP/s"], rates["TB/s"]
            print(f"\n{workload}, {precision}: {w.title}; {w.tasks} tasks")
            print(f"the GPU: {product:.1f} TFLOP/s in a product of {PRODUCT}, {copied:.2f} TB/s copied")
            for title, unit, rate in found:
                if precision == "fp32" or unit == "TFLOP/s":
                    print(f"{title:66}{rate:8.2f} {unit:8}{rate / rates[unit]:6.0%}")
                    rows.append({"part": "kernels", "workload": workload, "precision": precision, "kernel": title,
                                 "unit": unit, "value": rate, "machine": rates[unit]})  # fmt: skip
    return rows
