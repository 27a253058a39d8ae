"""What each kernel reaches on a GPU, beside the GPU's own product of matrices and its copy in the same run.

A case is captured as a CUDA graph of many launches, and timed by events. Its arrays are there several times, one set
after the other in turn, so that no launch finds its operands in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from bench.gpu.clock import Clock
from bench.output import Row
from bench.worker import Worker
from bench.workloads import EPSILON, PRECISION, WORKLOADS, Images, same
from tinymaml.kernels import gpu
from tinymaml.kernels.gpu.launch import Plan

LAUNCHES, ROUNDS = 20, 15  # in a graph, at least; graphs timed, of which the median counts
ROTATED, SETS = 1 << 29, 16  # bytes that are gone through before a set is used again, ten times a cache; sets at most
STORE, BLOCK = 1 << 32, 1 << 26  # bytes of random numbers, and of those that are different
PRODUCT, COPIED = 8192, 1 << 31


class Store:
    """Random numbers on the GPU, handed out stretch by stretch: zeros would be quicker than real ones."""

    def __init__(self) -> None:
        cupy = gpu.cupy()
        self._memory, self._at, self.taken = cupy.cuda.alloc(STORE), 0, 0
        block = np.random.default_rng(0).standard_normal(min(BLOCK, STORE) // 4, np.float32)
        for start in range(0, STORE, block.nbytes):
            cupy.ndarray(block.shape, np.float32, self._memory + start).set(block)

    def __call__(self, *shape: int) -> Any:
        """An array of float32 of the next of them, which are the first again after the last."""
        size = ceil(4 * prod(shape) / 512) * 512
        start = self._at if self._at + size <= STORE else 0
        self._at, self.taken = start + size, self.taken + size
        return gpu.cupy().ndarray(shape, np.float32, self._memory + start)


class Case(NamedTuple):
    """A kernel on the arrays of one layer. `make(store)` takes them and gives the plan and how much it does."""

    title: str
    unit: str  # TFLOP/s beside the product, TB/s beside the copy
    make: Callable[[Store], tuple[Plan, float]]


def _plan(name: tuple[str, str], outs: Sequence[Any], ins: Sequence[Any], **static: Any) -> Plan:
    plan = Plan()
    gpu.planner(*name)(plan, outs, ins, **static)
    return plan


def _bytes(*arrays: Any) -> float:
    return float(sum([a.nbytes for a in arrays]))


def _conv(which: str, w: Images, images: int, layer: int, store: Store) -> tuple[Plan, float]:
    size, (p, q), i, o = w.layers()[layer]
    stride = 1 if w.pooled else 2
    static = {"stride": (stride, stride), "padding": (same(size[0], stride), same(size[1], stride))}
    x, y, k = store(w.tasks, images, *size, i), store(w.tasks, images, p, q, o), store(w.tasks, 3, 3, i, o)
    outs, ins, more = {
        "conv2d": ([y], [x, k], {}),
        "conv2d_dx": ([x], [y, k], {"size": size}),
        "conv2d_dw": ([k], [x, y], {"size": (3, 3)}),
    }[which]
    return _plan(("conv", which), outs, ins, **static, **more), 2.0 * w.tasks * images * p * q * 9 * i * o


def _norm(which: str, w: Images, images: int, layer: int, store: Store) -> tuple[Plan, float]:
    """As the network has it: with ReLU, and with max-pooling if it pools."""
    _, (p, q), _, o = w.layers()[layer]
    large, small = (w.tasks, images, p, q, o), (w.tasks, images, p // 2, q // 2, o)
    small, end = (small, "_pool") if w.pooled else (large, "")
    x, y, (gamma, beta, mean, rstd) = store(*large), store(*small), (store(w.tasks, o) for _ in range(4))
    places = [gpu.cupy().zeros(small, np.int8)] if w.pooled else []
    static = {"eps": EPSILON, "rectified": True}
    value = _plan(("norm", f"batch_norm{end}"), [y, *places, mean, rstd], [x, gamma, beta], **static)
    if which == "batch_norm":
        return value, _bytes(x, y, *places)
    value.run()  # for the mean, 1 / std and the places, which the others read
    vx, moved = store(*large), [store(w.tasks, o) for _ in range(2)]
    if which == "batch_norm_tangent":
        ins = [x, gamma, beta, mean, rstd, vx, *moved, *places]
        return _plan(("norm", f"{which}{end}"), [y], ins, given=(True,) * 3, **static), _bytes(x, vx, y, *places)
    outs, at = [store(*large), *[store(w.tasks, o) for _ in range(2)]], [x, gamma, beta, y, mean, rstd]
    if which == "batch_norm_gradient":
        return _plan(("norm", f"{which}{end}"), outs, [*at, *places], **static), _bytes(x, y, *outs, *places)
    vg = store(*small)
    plan = _plan(("norm", f"{which}{end}"), outs, [*at, vx, *moved, vg, *places], given=(True,) * 4, **static)
    return plan, _bytes(x, y, vx, vg, *outs, *places)


def _relu(w: Images, images: int, layer: int, store: Store) -> tuple[Plan, float]:
    _, (p, q), _, o = w.layers()[layer]
    x, y = (store(w.tasks, images, p, q, o) for _ in range(2))
    return _plan(("elementwise", "relu"), [y], [x]), _bytes(x, y)


def cases(w: Images) -> Iterator[Case]:
    """Every kernel on every layer of the network, for the larger of support and query."""
    images = max(w.support, w.query)
    for layer, (size, result, i, o) in enumerate(w.layers()):
        x, y = (f"{images} x {'x'.join(map(str, shape))}" for shape in ((*size, i), (*result, o)))
        for which in ("conv2d", "conv2d_dx", "conv2d_dw"):
            if which != "conv2d_dx" or layer:  # nobody asks for the gradient by the images
                yield Case(f"{which}: {x} -> {y}", "TFLOP/s", partial(_conv, which, w, images, layer))
        for which in ("batch_norm", "batch_norm_gradient", "batch_norm_tangent", "batch_norm_hessian"):
            title = f"{which} with ReLU{' and max-pool' * w.pooled}: {y}"
            yield Case(title, "TB/s", partial(_norm, which, w, images, layer))
    yield Case(f"relu: {images} x {w.layers()[0][1]}", "TB/s", partial(_relu, w, images, 0))


def rate(case: Case, store: Store) -> float:
    """How much it does in a second."""
    before = store.taken
    plan, amount = case.make(store)
    sets = min(SETS, ceil(ROTATED / (store.taken - before)))
    plans = [plan, *[case.make(store)[0] for _ in range(sets - 1)]]
    return 1e3 * amount / milliseconds([each.run for each in plans])


def milliseconds(runs: Sequence[Callable[[], Any]]) -> float:
    """Of one call of what can be captured in a graph, one after the other: the median of graphs of many."""
    cupy = gpu.cupy()
    for run in runs:
        run()
    times, turns = [], ceil(LAUNCHES / len(runs))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        try:
            for _ in range(turns):
                for run in runs:
                    run()
        finally:
            graph = stream.end_capture()
        for _ in range(ROUNDS + 1):
            times.append(elapsed(lambda: graph.launch(stream), stream) / (turns * len(runs)))
    return float(np.median(times[1:]))  # the first warms up


def elapsed(run: Callable[[], Any], stream: Any = None) -> float:
    """Milliseconds of the GPU."""
    cuda = gpu.cupy().cuda
    start, end = cuda.Event(), cuda.Event()
    start.record(stream)
    run()
    end.record(stream)
    end.synchronize()
    return float(cuda.get_elapsed_time(start, end))


class Gpu:
    """The GPU's own rates, and our kernels on the layers of a workload, in a process with its precision."""

    def __init__(self) -> None:
        gpu.set_precision(PRECISION)
        self._store: Store | None = None

    def product(self) -> float:
        """Operations a second in a product of large matrices by cuBLAS, which goes by CUPY_TF32; it is not captured."""
        cupy, rng = gpu.cupy(), np.random.default_rng(0)
        a, b = (cupy.asarray(rng.standard_normal((PRODUCT, PRODUCT), np.float32)) for _ in range(2))
        times = [elapsed(lambda: cupy.matmul(a, b)) for _ in range(8)]
        return float(2e3 * PRODUCT**3 / np.median(times[2:]))

    def copy(self) -> float:
        """Bytes a second, read and written, of a copy from memory to memory."""
        a, b = gpu.cupy().cuda.alloc(COPIED), gpu.cupy().cuda.alloc(COPIED)
        times = [elapsed(lambda: b.copy_from_device_async(a, COPIED)) for _ in range(8)]
        return float(2e3 * COPIED / np.median(times[2:]))

    def kernel(self, workload: str, number: int) -> float:
        """The rate of a case."""
        self._store = self._store or Store()
        w = WORKLOADS[workload]
        assert isinstance(w, Images)
        return rate(list(cases(w))[number], self._store)


def _worker(precision: str) -> Worker:
    return Worker(
        "bench.gpu.kernels:Gpu", (), {"BENCH_PRECISION": precision, "CUPY_TF32": str(int(precision == "tf32"))}
    )


def _rates(worker: Worker) -> dict[str, float]:
    return {"TFLOP/s": worker.ask("product", limit=60) / 1e12, "TB/s": worker.ask("copy", limit=60) / 1e12}


def rates(precision: str) -> dict[str, float]:
    """The GPU's own, by unit."""
    with _worker(precision) as worker:
        return _rates(worker)


def run(workloads: Sequence[str], clock: Clock) -> Iterator[Row]:
    """All kernels, in fp32 and, those that have it, in TF32, as far as the time goes."""
    for precision in ("fp32", "tf32"):
        with _worker(precision) as worker:
            machine = _rates(worker)
            for workload in workloads:
                w = WORKLOADS[workload]
                print(
                    f"\n{workload}, {precision}: {w.title}; {w.tasks} tasks; the GPU: {machine['TFLOP/s']:.1f} TFLOP/s "
                    f"in a product of {PRODUCT}, {machine['TB/s']:.2f} TB/s copied"
                )
                for number, case in enumerate(cases(w)):  # type: ignore[arg-type]
                    if precision == "tf32" and case.unit != "TFLOP/s":
                        continue
                    if not clock.left():
                        raise SystemExit("no time left")
                    reached = worker.ask("kernel", workload, number, limit=60) / 1e12
                    print(f"{case.title:74}{reached:8.2f} {case.unit:8}{reached / machine[case.unit]:6.0%}")
                    yield {"part": "kernels", "workload": workload, "precision": precision, "kernel": case.title,
                           "unit": case.unit, "value": reached, "machine": machine[case.unit]}  # fmt: skip
