"""What each kernel for images reaches, beside the machine's own product of matrices and its copy in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.machine import COPIED, PRODUCT, Machine, gbs, gflops
from bench.output import Row
from bench.timing import PAUSE, turn
from bench.worker import Worker, cores
from bench.workloads import EPSILON, WORKLOADS, Images, same
from tinymaml.device import keep_memory
from tinymaml.kernels import cpu

Launch = Callable[[], Any]


class Case(NamedTuple):
    """A kernel on the arrays of one layer. `make(rng)` allocates them and gives the launch and how much it does."""

    title: str
    unit: str  # GFLOP/s beside the product, GB/s beside the copy, µs for what only costs its launch
    make: Callable[[Any], tuple[Launch, float]]


def _launch(name: tuple[str, str], outs: list[Any], ins: list[Any], **static: Any) -> Launch:
    return partial(cpu.find(*name), outs, ins, **static)


def _bytes(*arrays: Any) -> float:
    return sum([a.nbytes for a in arrays])


def _conv(which: str, shared: bool, w: Images, images: int, layer: int, rng: Any) -> tuple[Launch, float]:
    size, (p, q), i, o = w.layers()[layer]
    stride = 1 if w.pooled else 2
    static = {"stride": (stride, stride), "padding": (same(size[0], stride), same(size[1], stride))}
    x, y = _normal(rng, w.tasks, images, *size, i), _normal(rng, w.tasks, images, p, q, o)
    k = _normal(rng, w.tasks, 3, 3, i, o)
    k = np.broadcast_to(k[:1], k.shape) if shared else k
    outs, ins, more = {
        "conv2d": ([y], [x, k], {}),
        "conv2d_dx": ([x], [y, k], {"size": size}),
        "conv2d_dw": ([k], [x, y], {"size": (3, 3)}),
    }[which]
    return _launch(("conv", which), outs, ins, **static, **more), 2 * w.tasks * images * p * q * 9 * i * o


def _norm(which: str, w: Images, images: int, layer: int, rng: Any) -> tuple[Launch, float]:
    _, (p, q), _, o = w.layers()[layer]
    shape = (w.tasks, images, p, q, o)
    x, y, g, v = (_normal(rng, *shape) for _ in range(4))
    gamma, beta, vgamma, vbeta, average, scale = (_normal(rng, w.tasks, o) for _ in range(6))
    static = {"eps": EPSILON, "rectified": True}
    value = _launch(("norm", "batch_norm"), [y, average, scale], [x, gamma, beta], **static)
    value()  # for the mean and 1/std, which the others read
    residuals, per_task = [average, scale], [np.empty_like(gamma), np.empty_like(beta)]
    if which == "batch_norm":
        return value, _bytes(x, y)
    if which == "batch_norm_gradient":
        launch = _launch(("norm", "batch_norm_gradient"), [y, *per_task], [x, gamma, beta, g, *residuals], **static)
        return launch, _bytes(x, g, y)
    if which == "batch_norm_tangent":
        ins = [x, gamma, beta, *residuals, v, vgamma, vbeta]
        return _launch(("norm", "batch_norm_tangent"), [y], ins, given=(True,) * 3, **static), _bytes(x, v, y)
    vg = _normal(rng, *shape)
    ins = [x, gamma, beta, g, *residuals, v, vgamma, vbeta, vg]
    return _launch(("norm", "batch_norm_hessian"), [y, *per_task], ins, given=(True,) * 4, **static), _bytes(
        x, g, v, vg, y
    )


def _pool(which: str, w: Images, images: int, layer: int, rng: Any) -> tuple[Launch, float]:
    """As ops: their launches also allocate the result and record it."""
    from tinymaml import max_pool2d, vjp

    _, size, _, o = w.layers()[layer]
    x = _normal(rng, w.tasks, images, *size, o)
    if which == "max_pool2d":
        return lambda: max_pool2d(x, 2), _bytes(x) * 5 / 4
    y, pullback = vjp(lambda x: max_pool2d(x, 2), x)
    return lambda: pullback(y), _bytes(x, y)


def _cross_entropy(which: str, w: Images, images: int, rng: Any) -> tuple[Launch, float]:
    from tinymaml import hvp, softmax_cross_entropy, value_and_grad
    from tinymaml import sum as sum_

    logits, v = _normal(rng, w.tasks, images, w.ways), _normal(rng, w.tasks, images, w.ways)
    labels = rng.integers(0, w.ways, (w.tasks, images))

    def loss(logits: Any) -> Any:
        return sum_(softmax_cross_entropy(logits, labels))

    launches = {
        "value": lambda: loss(logits),
        "value and gradient": lambda: value_and_grad(loss)(logits),
        "Hessian-vector product": lambda: hvp(loss, logits, v),
    }
    return launches[which], 0.0


def _normal(rng: Any, *shape: int) -> Any:
    return rng.standard_normal(shape, np.float32)


def cases(workload: str) -> Iterator[Case]:
    """Every kernel on every layer of a workload's network, for its support and its query."""
    w = WORKLOADS[workload]
    for images in (w.support, w.query):
        for layer, (size, result, i, o) in enumerate(w.layers()):
            x, y = (f"{images} x {'x'.join(map(str, shape))}" for shape in ((*size, i), (*result, o)))
            for which in ("conv2d", "conv2d_dx", "conv2d_dw"):
                if which == "conv2d_dx" and layer == 0:
                    continue  # nobody asks for the gradient by the images
                for shared in (False, True) if which != "conv2d_dw" else (False,):
                    title = f"{which}{', shared w' * shared}: {x} -> {y}"
                    yield Case(title, "GFLOP/s", partial(_conv, which, shared, w, images, layer))
            for which in ("batch_norm", "batch_norm_gradient", "batch_norm_tangent", "batch_norm_hessian"):
                yield Case(f"{which} with ReLU: {y}", "GB/s", partial(_norm, which, w, images, layer))
            for which in ("max_pool2d", "max_pool2d, gradient") if w.pooled else ():
                yield Case(f"{which}: {y}", "GB/s", partial(_pool, which, w, images, layer))
        for which in ("value", "value and gradient", "Hessian-vector product"):
            title = f"softmax_cross_entropy, {which}: {images} x {w.ways}"
            yield Case(title, "µs", partial(_cross_entropy, which, w, images))


class Kernels(Machine):
    """The kernels of a workload and the machine's own measures, in a process with its own number of threads."""

    def __init__(self, workload: str) -> None:
        super().__init__()
        self._cases = list(cases(workload))
        self._launch: Launch | None = None
        keep_memory()

    def choose(self, case: int) -> float:
        """Get a case ready; returns how much it does."""
        self._launch, amount = self._cases[case].make(np.random.default_rng(0))
        self._launch()
        return amount

    def turn(self) -> float:
        """Milliseconds of one launch of the chosen case."""
        return turn(self._launch, warm=False)


def run(rounds: int, workloads: Sequence[str]) -> list[Row]:
    counts = sorted({1, cores()})
    rows: list[Row] = []
    for workload in workloads:
        with ExitStack() as stack:
            workers = []
            for n in counts:
                environment = {"TINYMAML_THREADS": str(n), "OPENBLAS_NUM_THREADS": str(n)}
                workers.append(stack.enter_context(Worker("bench.parts.kernels:Kernels", (workload,), environment)))
            rows += _run(workload, workers, counts, rounds)
    return rows


def _run(workload: str, workers: list[Worker], counts: list[int], rounds: int) -> list[Row]:
    machine: dict[str, list[list[float]]] = {"GFLOP/s": [], "GB/s": []}
    rows = []
    for number, case in enumerate(cases(workload)):
        amounts = [worker.ask("choose", number) for worker in workers]
        times = np.median([[worker.ask("turn") for worker in workers] for _ in range(rounds)], 0)
        reached = 1e3 * times if case.unit == "µs" else 1e-6 * np.array(amounts) / times
        rows.append((case, reached))
        machine["GFLOP/s"].append([gflops(worker.ask("product", False)) for worker in workers])
        machine["GB/s"].append([gbs(worker.ask("copy", False)) for worker in workers])
        time.sleep(PAUSE)  # OpenBLAS's threads still spin
    best = {unit: np.median(rates, 0) for unit, rates in machine.items()}
    w = WORKLOADS[workload]
    print(f"\nKernels on the layers of {workload}: {w.title}; {w.tasks} tasks, float32, medians of {rounds} rounds")
    print(f"{'threads':64}" + "".join([f"{n:8}{'':16}" for n in counts]))
    for unit, name in (
        ("GFLOP/s", f"the machine: sgemm {PRODUCT}"),
        ("GB/s", f"the machine: copy of {COPIED >> 20} MB"),
    ):
        print(f"{name:64}" + "".join([f"{rate:8.1f} {unit:15}" for rate in best[unit]]))
    for case, reached in rows:
        share = [f"{x:7.0%}" for x in reached / best[case.unit]] if case.unit in best else [""] * len(reached)
        print(
            f"{case.title:64}" + "".join([f"{x:8.1f} {case.unit:7}{s:8}" for x, s in zip(reached, share, strict=True)])
        )
    return [
        {"part": "kernels", "workload": workload, "kernel": case.title, "unit": case.unit, "threads": n, "value": value}
        for case, reached in rows
        for n, value in zip(counts, reached.tolist(), strict=True)
    ]
